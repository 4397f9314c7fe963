"""What the coordinator knows, as messages."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from libs.core.errors import InvalidInput
from libs.fl.training_plan import TrainingPlan
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.identity import Identity
from services.coordinator.catalogue import ListedDataset, ListedNode
from services.coordinator.changes import ProgressBoard
from services.coordinator.descriptions import disclosure_value
from services.coordinator.domain import Member, Round, Study
from services.coordinator.gateway_ports import AccessRequest, Association
from services.coordinator.model_access import ModelUse
from services.coordinator.models import OpenedPrediction
from services.coordinator.ports import Model, PartyAddress
from services.coordinator.states import TaskStatus
from services.coordinator.wire_values import to_timestamp

MAX_ASKERS = 256
"""As many as a training plan may name."""


def party_messages(addresses: Sequence[PartyAddress]) -> list[types_pb2.Party]:
    """The three parties."""
    return [
        types_pb2.Party(
            index=party.index,
            endpoint=types_pb2.Endpoint(address=party.address, identity=party.identity),
        )
        for party in addresses
    ]


def node_message(listed: ListedNode) -> coordinator_pb2.Node:
    """A hospital."""
    return coordinator_pb2.Node(
        identity=listed.node.identity,
        name=listed.node.name,
        online=listed.online,
        last_seen=to_timestamp(listed.node.last_seen),
        version=listed.node.version,
        datasets=listed.datasets,
    )


def dataset_message(listed: ListedDataset) -> coordinator_pb2.Dataset:
    """A dataset in the catalogue."""
    dataset = listed.dataset
    return coordinator_pb2.Dataset(
        dataset_id=dataset.dataset_id,
        name=dataset.name,
        description=dataset.description,
        tags=dataset.tags,
        modality=dataset.modality,
        images=dataset.images,
        hospital_identity=dataset.hospital,
        hospital_name=listed.hospital_name,
        online=listed.online,
        last_seen=_moment(listed.last_seen),
        version=dataset.version,
        licence=dataset.licence,
        content_hash=dataset.content_hash,
        schema=dataset.schema,
        disclosed_counts=dataset.disclosed_counts,
        disclosure=disclosure_value(dataset.disclosure),
        mock_recipe=dataset.mock_recipe,
        mock_hash=dataset.mock_hash,
        published_at=to_timestamp(dataset.published_at),
    )


def association_message(association: Association) -> coordinator_pb2.Association:
    """A hospital's key and what the operator said about it."""
    return coordinator_pb2.Association(
        hospital_identity=association.hospital,
        name=association.name,
        state=coordinator_pb2.AssociationState.Value(f"ASSOCIATION_STATE_{association.state.name}"),
        key_sha256=association.key_sha256,
        requested_at=to_timestamp(association.requested_at),
        decided_at=_moment(association.decided_at),
        decided_by=association.decided_by,
        reason=association.reason,
    )


def access_request_message(request: AccessRequest) -> coordinator_pb2.AccessRequest:
    """A request for access and what its hospital said."""
    grant = request.grant
    decision = coordinator_pb2.AccessDecision(
        request_id=request.request_id,
        state=coordinator_pb2.AccessState.Value(f"ACCESS_STATE_{grant.state.name}"),
        reason=grant.reason,
        uses=grant.uses,
        expires_at=_moment(grant.expires_at),
    )
    if grant.epsilon:
        decision.granted.CopyFrom(types_pb2.PrivacyCost(epsilon=grant.epsilon, delta=grant.delta))
    return coordinator_pb2.AccessRequest(
        request_id=request.request_id,
        dataset_id=request.dataset_id,
        purpose=request.purpose,
        plan_hash=request.plan_hash,
        model_id=request.model_id,
        requested_by=request.requested_by,
        requested_at=to_timestamp(request.requested_at),
        asked=types_pb2.PrivacyCost(epsilon=request.epsilon, delta=request.delta),
        uses_asked=request.uses,
        decision=decision,
        delivered=request.delivered,
    )


def study_message(study: Study, board: ProgressBoard) -> coordinator_pb2.Study:
    """A study with its rounds and everybody's progress."""
    message = study_summary(study)
    for member, shown in zip(study.members, message.members, strict=True):
        progress = board.of(study.study_id, member.hospital)
        if progress is not None:
            shown.phase = coordinator_pb2.Phase.Value(f"PHASE_{progress.phase.name}")
            shown.fraction = progress.fraction
    message.rounds.extend(_round_message(opened) for opened in study.rounds)
    return message


def study_summary(study: Study) -> coordinator_pb2.Study:
    """A study as lists show it: without its rounds, which would outgrow a message."""
    return coordinator_pb2.Study(
        study_id=study.study_id,
        title=study.title,
        state=coordinator_pb2.StudyState.Value(f"STUDY_STATE_{study.state.name}"),
        plan_hash=study.plan_hash,
        training_plan=study.plan_json,
        members=[_member_message(member) for member in study.members],
        rounds_done=study.rounds_done,
        rounds_planned=study.rounds_planned,
        latest_model_id=study.latest_model_id,
        released_model_id=study.released_model_id,
        failure=study.failure,
        created_by=study.created_by,
        created_at=to_timestamp(study.created_at),
        final_round=study.final_round,
        stopped_because=_stopped_because(study),
    )


def _stopped_because(study: Study) -> str:
    """As the plan's rule has it. The coordinator sees no metric, so it tells none."""
    stopped = study.stopped
    rule = None if stopped is None else TrainingPlan.from_json(study.plan_json).early_stopping
    if stopped is None or rule is None:
        return ""
    metric = {"loss": "loss", "auc": "AUC"}[rule.metric.value]
    votes = sum(p.status is TaskStatus.STOP for p in stopped.participants)
    more = f" by more than {rule.min_delta:g}" if rule.min_delta else ""
    return (
        f"{votes} hospitals ended training before round {stopped.number}: since round {study.final_round}, "
        f"whose version is released, their summed validation {metric} had not improved{more} for "
        f"{rule.patience} {'round' if rule.patience == 1 else 'rounds'}."
    )


def model_message(model: Model) -> coordinator_pb2.Model:
    """A model with its plan."""
    message = model_summary(model)
    message.plan = model.plan
    return message


def model_summary(model: Model) -> coordinator_pb2.Model:
    """A model as lists show it: without its plan, of which a page could outgrow a message."""
    return coordinator_pb2.Model(
        model_id=model.model_id,
        name=model.name,
        plan_hash=model.plan_hash,
        owner=model.owner,
        created_at=to_timestamp(model.created_at),
        ready=model.ready,
        use=types_pb2.ModelUse(
            anyone=model.use.anyone,
            asker_identities=model.use.askers,
            max_predictions=model.use.max_predictions,
        ),
    )


def model_use(message: types_pb2.ModelUse) -> ModelUse:
    """Who may ask an imported model. InvalidInput for an identity that is none, or for too many."""
    if len(message.asker_identities) > MAX_ASKERS:
        raise InvalidInput(
            f"A model names at most {MAX_ASKERS} who may ask it; name fewer, or let anyone ask."
        )
    askers = {Identity.parse(uri).uri for uri in message.asker_identities}
    return ModelUse(message.anyone, tuple(sorted(askers)), message.max_predictions)


def prediction_message(opened: OpenedPrediction) -> coordinator_pb2.OpenPredictionResponse:
    """Who plays which part in one prediction."""
    opening = opened.opening
    return coordinator_pb2.OpenPredictionResponse(
        computation_id=opening.computation_id,
        parties=party_messages(opened.parties),
        dealer=opening.dealer,
        first_evaluator=opening.first_evaluator,
        second_evaluator=opening.second_evaluator,
        plan=opened.model.plan,
        deadline_s=opening.deadline_s,
    )


def _moment(moment: datetime | None) -> Timestamp | None:
    return None if moment is None else to_timestamp(moment)


def _member_message(member: Member) -> coordinator_pb2.StudyMember:
    return coordinator_pb2.StudyMember(
        hospital_identity=member.hospital,
        hospital_name=member.hospital_name,
        dataset_id=member.dataset_id,
        decision=coordinator_pb2.Decision.Value(f"DECISION_{member.decision.name}"),
        problem=member.problem,
        images=member.images,
    )


def _round_message(opened: Round) -> coordinator_pb2.Round:
    message = coordinator_pb2.Round(
        number=opened.number,
        participant_identities=[participant.hospital for participant in opened.participants],
        survivor_identities=opened.survivors,
        opened_at=to_timestamp(opened.opened_at),
        bytes_between_parties=opened.bytes_between_parties,
        refused_identities=opened.refused,
    )
    if opened.closed_at is not None:
        message.closed_at.CopyFrom(to_timestamp(opened.closed_at))
    return message
