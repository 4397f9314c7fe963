"""Studies that a coordinator proposes: under an approval, by a rule, or as requests themselves."""

from __future__ import annotations

from dataclasses import replace

from libs.core.errors import FailedPrecondition, InvalidInput
from libs.dp.budget import Spend
from libs.runtime.audit.entry import Event
from services.hospital_node.access.admission import admit, live_approvals, refuse
from services.hospital_node.access.domain import AccessRequest, Approval, Origin, Purpose, Study
from services.hospital_node.access.planning import planned_cost
from services.hospital_node.access.ports import Unit
from services.hospital_node.access.requests import Decided, store
from services.hospital_node.access.statements import Proposal
from services.hospital_node.domain import Dataset


def propose(unit: Unit, study: Study) -> Decided:
    """A study whose statement was verified: admitted at once where an approval or a rule covers it, or kept
    as a request for the owner to decide. One that is known already stays what it was.

    Raises InvalidInput for one that no owner could approve: another plan under a known study, a statement
    that made a study before, an unknown data set. FailedPrecondition when something covers it, but approval
    or budget have not enough left; `turn_down` keeps that.
    """
    known = unit.study(study.study_id)
    if known is not None:
        if not repeats(known, study):
            raise InvalidInput(
                "The plan of this study, its hospitals or its readers changed after it was proposed. Create "
                "a new study for a new plan."
            )
        return Decided(None, studies=(known,))
    study, dataset = _new(unit, study)
    approvals = live_approvals(unit, study)
    if approvals:
        return _under_one_of(unit, study, approvals)
    planned = planned_cost(study.training_plan, dataset)[1]
    decided = store(unit, request_of(study, planned=planned, version=dataset.version))
    return decided if decided.studies else replace(decided, studies=(study,))


def turn_down(unit: Unit, study: Study, *, reason: str) -> Decided:
    """The study, kept as denied, so that the same one again gets the same answer."""
    known = unit.study(study.study_id)
    if known is not None:
        return Decided(None, studies=(known,))
    return Decided(None, studies=(refuse(unit, _new(unit, study)[0], reason),))


def repeats(known: Study, proposal: Proposal | Study) -> bool:
    """Whether the proposal is what the owner said yes or no to, and nothing else."""
    return _asked(known) == _asked(proposal)


def request_of(study: Study, *, planned: Spend, version: int) -> AccessRequest:
    """The study as the request that it is, when none came before it: once, for what its plan costs here."""
    return AccessRequest(
        request_id=study.study_id,
        origin=Origin.STUDY,
        purpose=Purpose.TRAINING,
        dataset_name=study.dataset_name,
        content_hash=study.content_hash,
        dataset_version=version,
        requester=study.requester,
        requested_by=study.requested_by,
        reason=study.title,
        asked=planned,
        uses_asked=1,
        received_at=study.received_at,
        plan_hash=study.plan_hash,
        training_plan=study.training_plan,
        planned=planned,
        study_id=study.study_id,
        title=study.title,
        hospitals=study.hospitals,
        readers=study.readers,
    )


def _new(unit: Unit, study: Study) -> tuple[Study, Dataset]:
    if unit.study_stated(study.statement_id) is not None:
        raise InvalidInput(
            "This signed statement has made another study already. Each study needs a statement of its own."
        )
    dataset = unit.dataset(study.dataset_name)
    if dataset is None:
        raise InvalidInput(f"This hospital publishes no data set named {study.dataset_name!r}.")
    study = replace(study, content_hash=dataset.content_hash)
    unit.put_study(study)
    details = {"plan_hash": study.plan_hash, "dataset": study.dataset_name}
    unit.record(Event("study.proposed", study.requester, f"study/{study.study_id}", details=details))
    return study, dataset


def _under_one_of(unit: Unit, study: Study, approvals: list[Approval]) -> Decided:
    """By the oldest approval that has room; the newest's reason if none has. `admit` takes all or nothing."""
    *others, newest = approvals
    for approval in others:
        try:
            return _under(unit, study, approval)
        except FailedPrecondition:
            continue
    return _under(unit, study, newest)


def _under(unit: Unit, study: Study, approval: Approval) -> Decided:
    admitted = admit(unit, study, approval, actor="system")
    return Decided(unit.request(approval.request_id), unit.approval(approval.approval_id), (admitted,))


def _asked(study: Proposal | Study) -> tuple[object, ...]:
    return (study.title, study.plan_hash, study.dataset_name, study.hospitals, study.readers)
