"""Requests for access: received, read by the owner, approved, narrowed, denied, revoked."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime

from libs.core.errors import FailedPrecondition, InvalidInput, NotFound
from libs.core.ids import new_id
from libs.dp.budget import Spend, Unbounded
from libs.runtime.audit.entry import Detail, Event
from services.hospital_node.access.admission import admit, refuse
from services.hospital_node.access.costs import NOTHING, covers, decimal_text, epsilon_text, in_words
from services.hospital_node.access.domain import (
    AccessRequest,
    Approval,
    ApprovalEvent,
    Origin,
    Purpose,
    RequestEvent,
    RequestState,
    Rule,
    Study,
    StudyEvent,
    StudyState,
)
from services.hospital_node.access.model_use import released_model
from services.hospital_node.access.planning import planned_cost
from services.hospital_node.access.ports import Unit
from services.hospital_node.access.rules import matching_rule

MAX_WAITING = 100
"""Requests of one requester that may wait at a node: more than staff would ever read."""


@dataclass(frozen=True)
class Decision:
    """What the owner says. `granted` None and `uses` 0 mean as asked."""

    approve: bool
    plan_hash: str = ""
    reason: str = ""
    granted: Spend | None = None
    uses: int = 0
    expires_at: datetime | None = None


@dataclass(frozen=True)
class Decided:
    """A request, its approval if there is one, and the studies that the decision touched."""

    request: AccessRequest | None
    approval: Approval | None = None
    studies: tuple[Study, ...] = ()


def receive(unit: Unit, request: AccessRequest) -> Decided:
    """A verified request, stored for the owner, or approved by a rule at once.

    Raises InvalidInput when it cannot be approved here.
    """
    dataset = unit.dataset(request.dataset_name)
    if dataset is None:
        raise InvalidInput(f"This hospital publishes no data set named {request.dataset_name!r}.")
    request = replace(request, content_hash=dataset.content_hash, dataset_version=dataset.version)
    if request.purpose is Purpose.TRAINING:
        request = replace(request, planned=planned_cost(request.training_plan, dataset)[1])
    if request.purpose is Purpose.PREDICTION:
        _require_own_model(unit, request)
        request = replace(request, planned=NOTHING)
    return store(unit, request)


def store(unit: Unit, request: AccessRequest) -> Decided:
    """Keep a new request; the oldest rule that matches approves it.

    The coordinator chooses a study's id. In the place of an approved request its plan would be approved, so
    an id that is taken is InvalidInput; so is a request that would have to wait when `MAX_WAITING` of the
    same requester do already.
    """
    if unit.request(request.request_id) is not None:
        raise InvalidInput("Another request at this hospital has this id. Create a new study.")
    details = {"purpose": request.purpose.value, "dataset": request.dataset_name, "uses": request.uses_asked}
    details |= {"epsilon": epsilon_text(request.asked.epsilon), "plan_hash": request.plan_hash}
    unit.record(Event("request.received", _asker(request), f"request/{request.request_id}", details=details))
    rule = matching_rule(unit, request)
    if rule is None:
        if unit.waiting_requests(request.requester) >= MAX_WAITING:
            raise InvalidInput(
                f"{MAX_WAITING} requests of this requester wait for the hospital's decision already. Ask its "
                "staff to decide some, then ask again with a new request."
            )
        unit.put_request(request)
        return Decided(request)
    decision = Decision(approve=True, granted=request.asked, reason=f"Approved by the rule {rule.rule_id}.")
    return _approve(unit, request, decision, by=f"rule {rule.rule_id}", rule=rule)


def _asker(request: AccessRequest) -> str:
    """Who asked, as far as that is certain: the coordinator only says who the person is."""
    staff = request.origin is Origin.STAFF and request.requested_by
    return f"{request.requester} ({request.requested_by})" if staff else request.requester


def decide(unit: Unit, request_id: str, decision: Decision, *, actor: str) -> Decided:
    """The owner's decision about exactly the plan of this hash.

    Raises NotFound; InvalidInput for another hash or for more than was asked; FailedPrecondition when it was
    decided before, the data set changed, or a study that waits for this cannot be paid for.
    """
    request = unit.request(request_id)
    if request is None:
        raise NotFound(f"There is no request {request_id!r} here. See: trefoil request list")
    if decision.plan_hash != request.plan_hash:
        raise InvalidInput(
            "This is not the hash of the plan that was asked for. Read the request again and decide with the "
            "hash shown there."
        )
    if decision.approve:
        return _approve(unit, request, decision, by=actor)
    return deny(unit, request, reason=decision.reason, actor=actor)


def deny(unit: Unit, request: AccessRequest, *, reason: str, actor: str) -> Decided:
    """No, for good; and no to the study that waits for it."""
    denied = replace(
        request,
        state=request.next_state(RequestEvent.DENY),
        decision_reason=reason,
        decided_by=actor,
        decided_at=unit.now,
    )
    if request.state is RequestState.DENIED:
        return Decided(request)
    unit.put_request(denied)
    unit.record(Event("request.denied", actor, f"request/{request.request_id}"))
    study = unit.study(request.study_id) if request.study_id else None
    if study is None or study.state is not StudyState.WAITING:
        return Decided(denied)
    return Decided(denied, studies=(refuse(unit, study, reason or "The data owner said no."),))


def revoke(unit: Unit, name: str, *, actor: str, reason: str) -> Decided:
    """End an approval, named by itself or by its request, every study under it and the use of their models.

    Raises NotFound.
    """
    approval = unit.approval(name) or unit.approval_of(name)
    request = unit.request(approval.request_id) if approval is not None else None
    if approval is None or request is None:
        raise NotFound(f"There is no approval {name!r} here. See: trefoil request list")
    approval.require(ApprovalEvent.REVOKE, now=unit.now)
    if approval.revoked_at is not None:
        return Decided(request, approval)
    approval = replace(approval, revoked_at=unit.now)
    request = replace(request, decision_reason=reason)
    unit.put_approval(approval)
    unit.put_request(request)
    unit.record(
        Event("approval.revoked", actor, f"request/{request.request_id}", approval=approval.approval_id)
    )
    if request.model_id:
        unit.model_use_changed(request.model_id)
    text = reason or "The hospital revoked its approval."
    under = unit.studies_under(approval.approval_id)
    for study in under:
        unit.model_use_changed(released_model(study.study_id))
    running = [study for study in under if study.state is StudyState.ADMITTED]
    return Decided(request, approval, tuple(refuse(unit, study, text) for study in running))


def end_study(unit: Unit, study_id: str) -> Decided | None:
    """The study is over: orders for it are refused, and nobody is asked about it any more."""
    study = unit.study(study_id)
    if study is None or study.state is StudyState.ENDED:
        return None
    unit.put_study(replace(study, state=study.next_state(StudyEvent.END)))
    unit.record(Event("study.ended", "system", f"study/{study_id}", approval=study.approval_id))
    request = unit.request(study_id)
    if request is None or request.study_id != study_id or request.state is not RequestState.PENDING:
        return None
    return deny(unit, request, reason="The study ended before it was decided.", actor="system")


def _approve(
    unit: Unit, request: AccessRequest, decision: Decision, *, by: str, rule: Rule | None = None
) -> Decided:
    approved = replace(
        request,
        state=request.next_state(RequestEvent.APPROVE),
        decision_reason=decision.reason,
        decided_by=by,
        decided_at=unit.now,
    )
    for check in _CHECKS:
        check(unit, request, decision)
    approval = Approval(
        approval_id=new_id("approval"),
        request_id=request.request_id,
        purpose=request.purpose,
        dataset_name=request.dataset_name,
        requester=request.requester,
        granted=_granted(request, decision),
        uses=decision.uses or request.uses_asked,
        expires_at=decision.expires_at,
        rule_id="" if rule is None else rule.rule_id,
    )
    unit.put_request(approved)
    unit.put_approval(approval)
    details: dict[str, Detail] = {"uses": approval.uses, "epsilon": epsilon_text(approval.granted.epsilon)}
    details |= {"delta": decimal_text(approval.granted.delta), "plan_hash": request.plan_hash}
    unit.record(
        Event(
            action="request.approved",
            actor=by,
            object=f"request/{request.request_id}",
            approval=approval.approval_id,
            details=details | {"requester": request.requester, "dataset": request.dataset_name},
        )
    )
    if request.model_id:
        unit.model_use_changed(request.model_id)
    study = unit.study(request.study_id) if request.study_id else None
    if study is None:
        return Decided(approved, approval)
    admitted = admit(unit, study, approval, actor=by)
    return Decided(approved, unit.approval(approval.approval_id), (admitted,))


def _granted(request: AccessRequest, decision: Decision) -> Spend:
    return request.asked if decision.granted is None else decision.granted


def _check_granted(_unit: Unit, request: AccessRequest, decision: Decision) -> None:
    granted = _granted(request, decision)
    if decision.granted is None and isinstance(granted.epsilon, Unbounded):
        raise InvalidInput(
            "This request is for use without differential privacy. If that is what you want, grant it in so "
            "many words: epsilon inf (trefoil request approve --without-privacy)."
        )
    if not covers(request.asked, granted):
        raise InvalidInput(
            f"An approval never grants more than was asked for: {in_words(request.asked)}. "
            "Grant that or less."
        )


def _check_uses(_unit: Unit, request: AccessRequest, decision: Decision) -> None:
    if decision.uses < 0 or decision.uses > request.uses_asked:
        raise InvalidInput(
            f"An approval never gives more uses than were asked for: {request.uses_asked}. "
            "Give that or fewer."
        )


def _check_expiry(unit: Unit, _request: AccessRequest, decision: Decision) -> None:
    if decision.expires_at is not None and decision.expires_at <= unit.now:
        raise InvalidInput("An approval expires in the future.")


def _check_content(unit: Unit, request: AccessRequest, _decision: Decision) -> None:
    dataset = unit.dataset(request.dataset_name)
    if dataset is None or dataset.content_hash != request.content_hash:
        raise FailedPrecondition(
            "The data set was withdrawn, or has changed since this was asked. Deny it, and let the requester "
            "ask for what is published now."
        )


_CHECKS: tuple[Callable[[Unit, AccessRequest, Decision], None], ...] = (
    _check_granted,
    _check_uses,
    _check_expiry,
    _check_content,
)


def _require_own_model(unit: Unit, request: AccessRequest) -> None:
    """A hospital speaks for released models that its data is in, on that data set."""
    study = unit.study(request.model_id.rpartition("/")[0])
    admitted = study is not None and study.approval_id and study.dataset_name == request.dataset_name
    if study is None or not admitted or released_model(study.study_id) != request.model_id:
        raise InvalidInput("No study that this hospital's data set was part of has released this model.")
