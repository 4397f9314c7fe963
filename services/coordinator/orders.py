"""What each hospital still has to be told, derived from the study and stored nowhere else.

Because it is derived, nothing has to be remembered about deliveries: a hospital that attaches again is
told whatever is outstanding at that moment, and an order that no longer applies is never sent.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from fractions import Fraction

from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from services.coordinator.domain import Member, Round, Study, training_model_id
from services.coordinator.gateway_ports import AccessRequest
from services.coordinator.states import Decision, RoundKind, RoundState, StudyState, TaskStatus
from services.coordinator.wire_values import to_fraction, to_signed, to_timestamp

_BEFORE_TRAINING = (StudyState.CREATED, StudyState.AWAITING_APPROVAL)


@dataclass(frozen=True)
class OrderKey:
    """What makes an order the same order: it is sent once on each stream. A request for access stands in the
    place of a study.
    """

    study_id: str
    kind: str
    round: int = 0
    attempt: int = 0


@dataclass(frozen=True)
class Order:
    """An order and its key."""

    key: OrderKey
    message: coordinator_pb2.CoordinatorOrder


def outstanding_orders(study: Study, hospital: str) -> Iterator[Order]:
    """What this hospital has to be told about this study now."""
    member = study.member(hospital)
    if member is None:
        return
    yield from _refusals(study, hospital)
    if study.ended:
        if not member.end_told:
            yield _study_ended(study)
        return
    if study.state in _BEFORE_TRAINING and member.decision is Decision.PENDING:
        yield _proposal(study, member)
    if member.decision is not Decision.APPROVED:
        return
    if study.calibration is not None and study.state is StudyState.CALIBRATING:
        for calibrator in study.calibration.calibrators:
            if calibrator.hospital == hospital and calibrator.status is TaskStatus.PENDING:
                yield _calibrate(study, study.calibration.deadline)
    current = study.current_round
    if current is not None and current.state is RoundState.OPEN:
        for participant in current.participants:
            if participant.hospital == hospital and participant.status is TaskStatus.PENDING:
                yield _contribute(study, current, hospital, participant.weight)


def access_request_order(request: AccessRequest) -> Order:
    """What the dataset's hospital is asked: the words as they were signed, and who the token says it is."""
    asked = coordinator_pb2.AccessRequestOrder(
        request_id=request.request_id,
        statement=to_signed(request.statement),
        training_plan=request.training_plan,
        requested_by=request.requested_by,
    )
    return Order(
        OrderKey(request.request_id, "access_request"), coordinator_pb2.CoordinatorOrder(access_request=asked)
    )


def _refusals(study: Study, hospital: str) -> Iterator[Order]:
    """What the parties' check refused of this hospital's; told again on every stream while the study is."""
    for refused in study.rounds:
        if hospital in refused.refused:
            reference = types_pb2.RoundRef(
                study_id=study.study_id, round=refused.number, attempt=refused.attempt
            )
            told = coordinator_pb2.ContributionRefused(
                round=reference, release=refused.kind is RoundKind.RELEASE
            )
            yield Order(
                OrderKey(study.study_id, "refused", refused.number, refused.attempt),
                coordinator_pb2.CoordinatorOrder(contribution_refused=told),
            )


def _study_ended(study: Study) -> Order:
    state = coordinator_pb2.StudyState.Value(f"STUDY_STATE_{study.state.name}")
    ended = coordinator_pb2.StudyEnded(study_id=study.study_id, state=state)
    return Order(OrderKey(study.study_id, "ended"), coordinator_pb2.CoordinatorOrder(study_ended=ended))


def _proposal(study: Study, member: Member) -> Order:
    proposal = coordinator_pb2.PlanProposal(
        study_id=study.study_id,
        title=study.title,
        training_plan=study.plan_json,
        plan_hash=study.plan_hash,
        dataset_name=member.dataset_name,
        requested_by=study.created_by,
        hospital_identities=[member.hospital for member in study.members],
        reader_identities=[study.creator, *(member.hospital for member in study.members)],
        statement=None if study.statement is None else to_signed(study.statement),
    )
    return Order(OrderKey(study.study_id, "proposal"), coordinator_pb2.CoordinatorOrder(proposal=proposal))


def _calibrate(study: Study, deadline: datetime) -> Order:
    calibrate = coordinator_pb2.CalibrateOrder(
        study_id=study.study_id,
        plan_hash=study.plan_hash,
        model_id=study.final_model_id,
        deadline=to_timestamp(deadline),
    )
    return Order(OrderKey(study.study_id, "calibrate"), coordinator_pb2.CoordinatorOrder(calibrate=calibrate))


def _contribute(study: Study, current: Round, hospital: str, weight: Fraction) -> Order:
    key = OrderKey(study.study_id, current.kind.value, current.number, current.attempt)
    reference = types_pb2.RoundRef(study_id=study.study_id, round=current.number, attempt=current.attempt)
    if current.kind is RoundKind.TRAIN:
        train = coordinator_pb2.TrainOrder(
            round=reference,
            plan_hash=study.plan_hash,
            base_model_id=training_model_id(study.study_id, current.number - 1),
            weight=to_fraction(weight),
            deadline=to_timestamp(current.deadline),
            counted_round=study.counted_round(hospital),
        )
        return Order(key, coordinator_pb2.CoordinatorOrder(train=train))
    assert study.compiled is not None  # a release round opens only with a compiled plan
    release = coordinator_pb2.ReleaseOrder(
        round=reference,
        plan_hash=study.plan_hash,
        base_model_id=study.final_model_id,
        bound_bits=study.compiled.bounds,
        compiled_plan_hash=study.compiled.hash,
        weight=to_fraction(weight),
        deadline=to_timestamp(current.deadline),
    )
    return Order(key, coordinator_pb2.CoordinatorOrder(release=release))
