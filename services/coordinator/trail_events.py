"""What the coordinator enters into its audit trail, read off the change itself: none is forgotten.

`Database` appends these in the transaction of the change. The actor is whoever is calling, or "system" for
what a study's supervisor does.
"""

from __future__ import annotations

from collections.abc import Iterator

from libs.rpc.caller import current_actor, current_request_id
from libs.runtime.audit.entry import Detail, Event, Outcome, listed
from services.coordinator.domain import Round, Study
from services.coordinator.gateway_ports import AccessRequest, Association, Dataset, Grant
from services.coordinator.ports import Model, PredictionOpening
from services.coordinator.states import (
    AccessState,
    AssociationState,
    Decision,
    RoundState,
    StudyState,
)

_STUDY_ACTIONS = {
    StudyState.AWAITING_APPROVAL: "study.started",
    StudyState.TRAINING: "study.approved",
    StudyState.CALIBRATING: "study.trained",
    StudyState.RELEASING: "study.calibrated",
    StudyState.READY: "study.released",
    StudyState.FAILED: "study.failed",
    StudyState.CANCELLED: "study.cancelled",
}
_ROUND_ACTIONS = {
    RoundState.OPENING: "round.planned",
    RoundState.OPEN: "round.opened",
    RoundState.CLOSING: "round.ended",
    RoundState.COMPLETED: "round.closed",
    RoundState.ABANDONED: "round.abandoned",
    RoundState.STOPPED: "round.stopped",
}


def made(action: str, what: str, outcome: Outcome = Outcome.DONE, **details: Detail) -> Event:
    """An event of the call that is being handled: its caller and its request id are filled in."""
    request_id = current_request_id() or ""
    return Event(action, current_actor(), what, outcome, request_id=request_id, details=details)


def study_created(study: Study) -> Event:
    """With the plan's hash, and all that it was made for."""
    return made(
        "study.created",
        study.study_id,
        plan_hash=study.plan_hash,
        rounds=study.rounds_planned,
        quorum=study.quorum,
        datasets=listed([member.dataset_id for member in study.members]),
    )


def study_changes(before: Study, after: Study) -> Iterator[Event]:
    """Decisions, rounds and states that are not what they were."""
    for old, new in zip(before.members, after.members, strict=True):
        if new.decision is not old.decision and new.decision is not Decision.PENDING:
            approved = new.decision is Decision.APPROVED
            yield made(
                "plan.approved" if approved else "plan.denied",
                after.study_id,
                Outcome.DONE if approved else Outcome.REFUSED,
                plan_hash=after.plan_hash,
                hospital=new.hospital,
                dataset=new.dataset_id,
            )
    known = {number.number: number for number in before.rounds}
    for current in after.rounds:
        old_round = known.get(current.number)
        if old_round is None or (old_round.state, old_round.attempt) != (current.state, current.attempt):
            yield _round_changed(after.study_id, current)
    if after.state is not before.state:
        outcome = Outcome.FAILED if after.state is StudyState.FAILED else Outcome.DONE
        yield made(
            _STUDY_ACTIONS[after.state],
            after.study_id,
            outcome,
            plan_hash=after.plan_hash,
            rounds_done=after.rounds_done,
        )


def dataset_published(dataset: Dataset) -> Event:
    """In the catalogue, or changed there."""
    return made("dataset.published", dataset.dataset_id, images=dataset.images, tags=listed(dataset.tags))


def dataset_withdrawn(dataset_id: str) -> Event:
    """No longer in the catalogue."""
    return made("dataset.withdrawn", dataset_id)


def association_changed(association: Association) -> Event:
    """A hospital asked with a key, left, or the operator decided about it."""
    turned_away = association.state in (AssociationState.DENIED, AssociationState.REVOKED)
    action = "asked" if association.state is AssociationState.PENDING else association.state.value
    return made(
        f"association.{action}",
        association.hospital,
        Outcome.REFUSED if turned_away else Outcome.DONE,
        key_sha256=association.key_sha256,
    )


def access_requested(request: AccessRequest) -> Event:
    """Somebody asked a hospital for access."""
    return made(
        "access.requested",
        request.request_id,
        dataset=request.dataset_id,
        purpose=request.purpose,
        plan_hash=request.plan_hash,
        model=request.model_id,
        epsilon=request.epsilon,
        delta=request.delta,
        uses=request.uses,
    )


def access_decided(request_id: str, grant: Grant) -> Event:
    """A hospital said what became of a request."""
    approved = grant.state is AccessState.APPROVED
    return made(
        f"access.{grant.state.value}",
        request_id,
        Outcome.DONE if approved else Outcome.REFUSED,
        epsilon=grant.epsilon,
        delta=grant.delta,
        uses=grant.uses,
    )


def model_added(model: Model) -> Event:
    """Imported by its owner, or released by a study."""
    action = "model.released" if model.ready else "model.imported"
    return made(action, model.model_id, plan_hash=model.plan_hash, owner=model.owner)


def prediction_opened(opening: PredictionOpening, cell: int) -> Event:
    """The parties took it on, for the client that asked."""
    return made(
        "prediction.opened",
        opening.computation_id,
        model=opening.model_id,
        batch=opening.batch,
        client=opening.client,
        cell=cell,
        dealer=int(opening.dealer),
    )


def hospital_attached(hospital: str) -> Event:
    """Its stream begins."""
    return made("hospital.attached", hospital)


def hospital_detached(hospital: str) -> Event:
    """Its stream ended."""
    return made("hospital.detached", hospital)


def _round_changed(study_id: str, current: Round) -> Event:
    details: dict[str, Detail] = {"attempt": current.attempt, "kind": current.kind.value}
    if current.refused:
        details["refused"] = listed([_name(hospital) for hospital in current.refused])
    if current.state is RoundState.COMPLETED:
        details["survivors"] = listed([_name(hospital) for hospital in current.survivors])
    else:
        details["hospitals"] = listed([_name(member.hospital) for member in current.participants])
    outcome = Outcome.FAILED if current.state is RoundState.ABANDONED else Outcome.DONE
    what = f"round {current.number} of study {study_id}"
    return made(_ROUND_ACTIONS[current.state], what, outcome, **details)


def _name(hospital: str) -> str:
    return hospital.rpartition("/")[2]
