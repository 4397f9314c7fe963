"""Between the protos of the link and the node's own types. Everything received is parsed here, once."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Set
from datetime import UTC, datetime
from fractions import Fraction

from google.protobuf.timestamp_pb2 import Timestamp

from libs.core.errors import InvalidInput
from libs.core.ids import PARTIES, PartyId
from libs.data.disclosure import CountDisclosure
from libs.data.schema import MODALITY
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.identity import Identity, Kind
from services.hospital_node.access.costs import decimal_text, epsilon_text
from services.hospital_node.access.domain import Standing, Told
from services.hospital_node.access.statements import MAX_ID_CHARACTERS, Asked, Proposal
from services.hospital_node.domain import (
    CalibrateOrder,
    Dataset,
    Order,
    Phase,
    ReleaseOrder,
    Task,
    TaskKey,
    TaskKind,
    TrainOrder,
)

_PHASES = {
    Phase.FETCHING: pb.PHASE_FETCHING,
    Phase.TRAINING: pb.PHASE_TRAINING,
    Phase.SENDING: pb.PHASE_SENDING,
    Phase.CALIBRATING: pb.PHASE_CALIBRATING,
}

_STANDINGS = {
    Standing.PENDING: pb.ACCESS_STATE_PENDING,
    Standing.APPROVED: pb.ACCESS_STATE_APPROVED,
    Standing.DENIED: pb.ACCESS_STATE_DENIED,
    Standing.REVOKED: pb.ACCESS_STATE_REVOKED,
    Standing.EXPIRED: pb.ACCESS_STATE_EXPIRED,
    Standing.USED_UP: pb.ACCESS_STATE_USED_UP,
}
_DISCLOSURES = {
    CountDisclosure.EXACT: pb.COUNT_DISCLOSURE_EXACT,
    CountDisclosure.ROUNDED: pb.COUNT_DISCLOSURE_ROUNDED,
    CountDisclosure.WITHHELD: pb.COUNT_DISCLOSURE_WITHHELD,
}

MAX_BOUND_BITS = 62
PROGRESS_STEPS = 20
"""In how many steps progress is told: a fraction after every batch would tell how many images there are."""


# ---------------------------------------------------------------- what is received


def parse_parties(welcome: pb.Welcome) -> dict[PartyId, str]:
    """Party -> "host:port". Raises InvalidInput unless each of the three is named once.

    Only addresses are believed: a party's identity follows from its number, and TLS holds it to that.
    """
    addresses = {PartyId(party.index): party.endpoint.address for party in welcome.parties}
    if len(welcome.parties) != len(PARTIES) or set(addresses) != set(PARTIES) or not all(addresses.values()):
        raise InvalidInput("The coordinator did not name the three parties.")
    return addresses


def parse_proposal(message: pb.PlanProposal) -> Proposal:
    """A proposal as it came, before any check of the plan and of what was signed."""
    if not message.study_id or not message.plan_hash:
        raise InvalidInput("A proposal needs a study and a plan.")
    if len(message.study_id) > MAX_ID_CHARACTERS:
        raise InvalidInput(f"A study's id has at most {MAX_ID_CHARACTERS} characters.")
    return Proposal(
        study_id=message.study_id,
        title=message.title,
        requested_by=message.requested_by,
        dataset_name=message.dataset_name,
        plan_hash=message.plan_hash,
        training_plan=message.training_plan,
        hospitals=_identities(message.hospital_identities, kinds={Kind.HOSPITAL}),
        readers=_identities(message.reader_identities, kinds={Kind.HOSPITAL, Kind.CLIENT}),
        statement=message.statement,
    )


def parse_asked(message: pb.AccessRequestOrder) -> Asked:
    """A request for access as it came, before any check of what was signed."""
    if not message.request_id or len(message.request_id) > MAX_ID_CHARACTERS:
        raise InvalidInput(f"A request for access has an id of at most {MAX_ID_CHARACTERS} characters.")
    return Asked(
        request_id=message.request_id,
        statement=message.statement,
        training_plan=message.training_plan,
        requested_by=message.requested_by,
    )


def parse_train(message: pb.TrainOrder) -> TrainOrder:
    """Raises InvalidInput when something is missing."""
    return TrainOrder(
        key=_round_key(message.round, TaskKind.TRAIN),
        plan_hash=message.plan_hash,
        base_model_id=message.base_model_id,
        weight=_weight(message.weight),
        deadline=_deadline(message.deadline),
        counted_round=message.counted_round,
    )


def parse_refused(message: pb.ContributionRefused) -> TaskKey:
    """Which of this hospital's contributions was left out."""
    return _round_key(message.round, TaskKind.RELEASE if message.release else TaskKind.TRAIN)


def parse_calibrate(message: pb.CalibrateOrder) -> CalibrateOrder:
    """Raises InvalidInput when something is missing."""
    return CalibrateOrder(
        key=_key(message.study_id, TaskKind.CALIBRATE),
        plan_hash=message.plan_hash,
        base_model_id=message.model_id,
        deadline=_deadline(message.deadline),
    )


def parse_release(message: pb.ReleaseOrder) -> ReleaseOrder:
    """Raises InvalidInput when something is missing or a bound is absurd."""
    if any(abs(bits) > MAX_BOUND_BITS for bits in message.bound_bits.values()):
        raise InvalidInput("The release order holds a bound that no ring could hold.")
    return ReleaseOrder(
        key=_round_key(message.round, TaskKind.RELEASE),
        plan_hash=message.plan_hash,
        base_model_id=message.base_model_id,
        bound_bits=dict(message.bound_bits),
        compiled_plan_hash=message.compiled_plan_hash,
        weight=_weight(message.weight),
        deadline=_deadline(message.deadline),
    )


ORDER_PARSERS: dict[str, Callable[[pb.CoordinatorOrder], Order]] = {
    "train": lambda message: parse_train(message.train),
    "calibrate": lambda message: parse_calibrate(message.calibrate),
    "release": lambda message: parse_release(message.release),
}


def _key(study_id: str, kind: TaskKind, *, number: int = 0, attempt: int = 0) -> TaskKey:
    if not study_id:
        raise InvalidInput("An order needs a study.")
    return TaskKey(study_id=study_id, kind=kind, round=number, attempt=attempt)


def _round_key(message: types_pb2.RoundRef, kind: TaskKind) -> TaskKey:
    if not message.round:
        raise InvalidInput("Rounds count from 1.")
    return _key(message.study_id, kind, number=message.round, attempt=message.attempt)


def _weight(message: types_pb2.Fraction) -> Fraction:
    if not 0 < message.numerator <= message.denominator:
        raise InvalidInput("A hospital's weight is above 0 and at most 1.")
    return Fraction(message.numerator, message.denominator)


def _identities(uris: Iterable[str], *, kinds: Set[Kind]) -> tuple[str, ...]:
    identities = sorted({Identity.parse(uri) for uri in uris}, key=lambda identity: identity.uri)
    if any(identity.kind not in kinds for identity in identities):
        raise InvalidInput("A study joins hospitals; its sums are read by hospitals and clients only.")
    return tuple(identity.uri for identity in identities)


def _deadline(message: Timestamp) -> datetime:
    if message.seconds <= 0:
        raise InvalidInput("An order needs a deadline.")
    return message.ToDatetime(tzinfo=UTC)


# ---------------------------------------------------------------- what is sent


def hello_event(*, name: str, version: str) -> pb.HospitalEvent:
    """The first event of a stream."""
    return pb.HospitalEvent(hello=pb.HospitalHello(name=name, version=version))


def leave_event() -> pb.HospitalEvent:
    """The hospital takes part no longer."""
    return pb.HospitalEvent(leave=pb.Leave())


def heartbeat_event() -> pb.HospitalEvent:
    """A sign of life."""
    return pb.HospitalEvent(heartbeat=pb.Heartbeat())


def dataset_event(dataset: Dataset) -> pb.HospitalEvent:
    """What the owner wrote, the form of the images, the hash of the files, and as much of their numbers as is
    disclosed: no path, no number of patients.
    """
    disclosed = dataset.disclosed
    message = pb.Dataset(
        name=dataset.name,
        description=dataset.description,
        tags=dataset.tags,
        modality=MODALITY,
        images=disclosed.about_images,
        version=dataset.version,
        licence=dataset.licence,
        content_hash=dataset.content_hash,
        schema=dataset.schema,
        disclosed_counts={name: count.low for name, count in disclosed.images_per_class.items()},
        disclosure=_DISCLOSURES[dataset.disclosure],
        mock_recipe=dataset.mock_recipe,
        mock_hash=dataset.mock_hash,
    )
    message.published_at.FromDatetime(dataset.published_at)
    return pb.HospitalEvent(dataset_published=message)


def withdrawn_event(name: str) -> pb.HospitalEvent:
    """The data set left the catalogue."""
    return pb.HospitalEvent(dataset_withdrawn=pb.DatasetWithdrawn(name=name))


def plan_event(*, study_id: str, plan_hash: str, approved: bool, reason: str) -> pb.HospitalEvent:
    """The owner's decision."""
    decision = pb.PlanDecision(study_id=study_id, plan_hash=plan_hash, approved=approved, reason=reason)
    return pb.HospitalEvent(plan_decision=decision)


def access_event(told: Told) -> pb.HospitalEvent:
    """What became of a request for access."""
    decision = pb.AccessDecision(
        request_id=told.request_id, state=_STANDINGS[told.standing], reason=told.reason, uses=told.uses
    )
    if told.granted is not None:
        decision.granted.epsilon = epsilon_text(told.granted.epsilon)
        decision.granted.delta = decimal_text(told.granted.delta)
    if told.expires_at is not None:
        decision.expires_at.FromDatetime(told.expires_at)
    return pb.HospitalEvent(access_decision=decision)


def progress_event(key: TaskKey, phase: Phase, fraction: float) -> pb.HospitalEvent:
    """How far a task is, in steps."""
    told = math.floor(fraction * PROGRESS_STEPS) / PROGRESS_STEPS
    return pb.HospitalEvent(
        progress=pb.TrainingProgress(
            study_id=key.study_id, round=key.round, phase=_PHASES[phase], fraction=told
        )
    )


def done_event(task: Task) -> pb.HospitalEvent:
    """A contribution lies complete at the three parties; or bounds."""
    if task.key.kind is TaskKind.CALIBRATE:
        report = pb.CalibrationReport(study_id=task.key.study_id, bound_bits=task.bound_bits)
        return pb.HospitalEvent(calibration=report)
    key = task.key
    sent = pb.ContributionSent(study_id=key.study_id, round=key.round, attempt=key.attempt)
    return pb.HospitalEvent(contribution_sent=sent)


def stop_event(key: TaskKey, *, best_round: int) -> pb.HospitalEvent:
    """By the plan's early stopping, training ends here."""
    proposed = pb.StopProposed(
        study_id=key.study_id, round=key.round, attempt=key.attempt, best_round=best_round
    )
    return pb.HospitalEvent(stop_proposed=proposed)


def failed_event(key: TaskKey, *, code: str, message: str) -> pb.HospitalEvent:
    """A public text that names no file and no value."""
    failed = pb.TaskFailed(
        study_id=key.study_id, round=key.round, attempt=key.attempt, code=code, message=message
    )
    return pb.HospitalEvent(task_failed=failed)
