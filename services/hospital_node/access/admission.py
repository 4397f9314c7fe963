"""Studies here: admitted under an approval, paid for before they start, checked at every order."""

from __future__ import annotations

from dataclasses import replace

from libs.core.errors import FailedPrecondition
from libs.runtime.audit.entry import Event, Outcome
from services.hospital_node.access.costs import decimal_text, epsilon_text
from services.hospital_node.access.domain import (
    Approval,
    ApprovalEvent,
    ApprovalState,
    LedgerKind,
    NewEntry,
    Purpose,
    Study,
    StudyEvent,
    StudyState,
)
from services.hospital_node.access.ledger import spend
from services.hospital_node.access.planning import attempt_cost, planned_cost
from services.hospital_node.access.ports import Unit
from services.hospital_node.domain import Dataset


def admit(unit: Unit, study: Study, approval: Approval, *, actor: str) -> Study:
    """The study, admitted: one use of the approval and the planned cost of all rounds are taken here and now.

    Raises FailedPrecondition, with nothing taken, when the approval is for something else, over or without a
    use, the data set is not what was approved, or approval or budget have not enough left.
    """
    approval.require(ApprovalEvent.USE, now=unit.now)
    dataset = approved_data(unit, study, approval)
    event, cost = planned_cost(study.training_plan, dataset)
    admitted = replace(
        study, state=study.next_state(StudyEvent.ADMIT), approval_id=approval.approval_id, reason=""
    )
    line = NewEntry(
        LedgerKind.ADMITTED,
        study.dataset_name,
        study.requester,
        cost,
        event=event,
        approval_id=approval.approval_id,
        study_id=study.study_id,
    )
    spend(unit, line, approval=approval)
    unit.put_approval(replace(approval, used=approval.used + 1))
    unit.put_study(admitted)
    unit.record(
        Event(
            action="study.admitted",
            actor=actor,
            object=f"study/{study.study_id}",
            approval=approval.approval_id,
            details={
                "plan_hash": study.plan_hash,
                "dataset": study.dataset_name,
                "requester": study.requester,
                "epsilon": epsilon_text(cost.epsilon),
                "delta": decimal_text(cost.delta),
            },
        )
    )
    return admitted


def approved_data(unit: Unit, study: Study, approval: Approval) -> Dataset:
    """The study's data set, if the approval is for this plan of this scientist on this very content.

    Raises FailedPrecondition otherwise.
    """
    request = unit.request(approval.request_id)
    approved = (approval.purpose, approval.dataset_name, approval.requester)
    if (
        request is None
        or approved != (Purpose.TRAINING, study.dataset_name, study.requester)
        or request.plan_hash != study.plan_hash
    ):
        raise FailedPrecondition("This hospital has not approved this training plan for this study.")
    dataset = unit.dataset(study.dataset_name)
    if dataset is None:
        raise FailedPrecondition("The data set of this study is no longer published here.")
    if dataset.content_hash != request.content_hash:
        raise FailedPrecondition(
            "The data set has changed since this hospital approved its use. Ask for another approval."
        )
    return dataset


def consent(unit: Unit, *, study_id: str, plan_hash: str) -> tuple[Study, Dataset]:
    """The admitted study and its data set, on which every order rests.

    Raises FailedPrecondition unless this very hash was admitted for this study, its approval still holds and
    the data set is still what was approved. The coordinator's word counts for nothing here.
    """
    study = unit.study(study_id)
    if study is None:
        raise FailedPrecondition("This study was never proposed to this hospital.")
    approval = unit.approval(study.approval_id)
    if study.state is not StudyState.ADMITTED or study.plan_hash != plan_hash or approval is None:
        raise FailedPrecondition("This hospital has not approved this training plan for this study.")
    approval.require(ApprovalEvent.GO_ON, now=unit.now)
    return study, approved_data(unit, study, approval)


def pay_for_attempt(unit: Unit, *, study_id: str, plan_hash: str, number: int, attempt: int) -> None:
    """Take the cost of training a round once more, where it costs something.

    Admission paid for every round once. With differential privacy another attempt draws fresh noise: it is
    another release of the same data, once shares of an earlier one may have left. Without it, training
    repeats the very same update. Paying twice for one attempt does nothing. FailedPrecondition when approval
    or budget have not enough left.
    """
    study, dataset = consent(unit, study_id=study_id, plan_hash=plan_hash)
    cost = attempt_cost(study.training_plan, dataset)
    if cost is None or not unit.attempts_sent(study_id, number=number, besides=attempt):
        return
    if unit.attempt_entered(study_id, number=number, attempt=attempt):
        return
    approval = unit.approval(study.approval_id)
    if approval is None:
        raise FailedPrecondition("This hospital has not approved this training plan for this study.")
    event, spent = cost
    line = NewEntry(
        LedgerKind.ATTEMPT,
        study.dataset_name,
        study.requester,
        spent,
        event=event,
        approval_id=approval.approval_id,
        study_id=study_id,
        round=number,
        attempt=attempt,
    )
    spend(unit, line, approval=approval)
    unit.record(
        Event(
            action="round.repeated",
            actor="system",
            object=f"study/{study_id}",
            approval=approval.approval_id,
            details={"round": number, "attempt": attempt, "epsilon": epsilon_text(spent.epsilon)},
        )
    )


def live_approvals(unit: Unit, study: Study) -> list[Approval]:
    """Approvals with a use left that are for this study's plan, data and scientist; the oldest first."""
    found = unit.approvals_for(requester=study.requester, dataset_name=study.dataset_name)
    return [
        approval
        for approval in found
        if approval.state(unit.now) is ApprovalState.LIVE and _is_for(unit, approval, study)
    ]


def refuse(unit: Unit, study: Study, reason: str) -> Study:
    """The study, denied for good. Its scientist creates another one."""
    refused = replace(study, state=study.next_state(StudyEvent.DENY), reason=reason)
    unit.put_study(refused)
    unit.record(
        Event(
            action="study.refused",
            actor="system",
            object=f"study/{study.study_id}",
            outcome=Outcome.REFUSED,
            details={"plan_hash": study.plan_hash, "requester": study.requester},
        )
    )
    return refused


def _is_for(unit: Unit, approval: Approval, study: Study) -> bool:
    request = unit.request(approval.request_id)
    return (
        request is not None
        and approval.purpose is Purpose.TRAINING
        and request.plan_hash == study.plan_hash
        and request.content_hash == study.content_hash
    )
