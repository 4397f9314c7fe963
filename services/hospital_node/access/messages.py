"""Between the protos of AccessService and the domain. Everything received is parsed here, once."""

from __future__ import annotations

from datetime import UTC, datetime

from google.protobuf.timestamp_pb2 import Timestamp

from libs.core.errors import InvalidInput
from libs.dp.budget import Spend, total
from libs.rpc._generated.trefoil.hospital.v1 import access_pb2 as pb
from libs.rpc._generated.trefoil.types.v1.types_pb2 import PrivacyCost
from libs.rpc.identity import Identity
from services.hospital_node.access.costs import decimal_text, epsilon_text, parse_cost
from services.hospital_node.access.domain import (
    AccessRequest,
    Approval,
    LedgerEntry,
    Purpose,
    RequestState,
    Rule,
)
from services.hospital_node.access.ledger import Balance
from services.hospital_node.access.ports import Unit
from services.hospital_node.access.requests import Decision

_PURPOSES = {
    Purpose.TRAINING: pb.PURPOSE_TRAINING,
    Purpose.PREDICTION: pb.PURPOSE_PREDICTION,
    Purpose.STATISTICS: pb.PURPOSE_STATISTICS,
}
_STATES = {
    RequestState.PENDING: pb.REQUEST_STATE_PENDING,
    RequestState.APPROVED: pb.REQUEST_STATE_APPROVED,
    RequestState.DENIED: pb.REQUEST_STATE_DENIED,
}


# ---------------------------------------------------------------- what is received


def parse_purpose(value: int) -> Purpose:
    """InvalidInput for none."""
    for purpose, number in _PURPOSES.items():
        if number == value:
            return purpose
    raise InvalidInput("Name a purpose: training, prediction or statistics.")


def parse_privacy_cost(message: PrivacyCost) -> Spend:
    """InvalidInput for anything that is no decimal number."""
    return parse_cost(epsilon=message.epsilon, delta=message.delta)


def parse_decision(message: pb.DecideRequestRequest) -> Decision:
    """The owner's decision, before it is held against the request."""
    return Decision(
        approve=message.approve,
        plan_hash=message.plan_hash,
        reason=message.reason,
        granted=parse_privacy_cost(message.granted) if message.HasField("granted") else None,
        uses=message.uses,
        expires_at=_moment(message.expires_at) if message.HasField("expires_at") else None,
    )


def parse_rule(message: pb.Rule, *, created_by: str, now: datetime) -> Rule:
    """A rule without an id. InvalidInput for a purpose or a requester that cannot be."""
    return Rule(
        rule_id="",
        purposes=frozenset(parse_purpose(purpose) for purpose in message.purposes),
        dataset_names=frozenset(message.dataset_names),
        plan_hashes=frozenset(message.plan_hashes),
        requesters=frozenset(Identity.parse(uri).uri for uri in message.requester_identities),
        at_most=parse_privacy_cost(message.at_most),
        uses=message.uses,
        until=_moment(message.until) if message.HasField("until") else None,
        created_by=created_by,
        created_at=now,
    )


# ---------------------------------------------------------------- what is sent


def request_message(unit: Unit, request: AccessRequest) -> pb.AccessRequest:
    """The request with its approval, as it stands in this transaction."""
    approval = unit.approval_of(request.request_id)
    state = _STATES[request.state]
    if approval is not None and approval.revoked_at is not None:
        state = pb.REQUEST_STATE_REVOKED
    message = pb.AccessRequest(
        request_id=request.request_id,
        purpose=_PURPOSES[request.purpose],
        dataset_name=request.dataset_name,
        dataset_version=request.dataset_version,
        content_hash=request.content_hash,
        plan_hash=request.plan_hash,
        training_plan=request.training_plan,
        model_id=request.model_id,
        requester_identity=request.requester,
        requested_by=request.requested_by,
        reason=request.reason,
        asked=privacy_cost(request.asked),
        uses_asked=request.uses_asked,
        received_at=_timestamp(request.received_at),
        state=state,
        decision_reason=request.decision_reason,
        decided_by=request.decided_by,
        study_id=request.study_id,
        title=request.title,
        hospital_identities=request.hospitals,
        reader_identities=request.readers,
    )
    if request.planned is not None:
        message.planned.CopyFrom(privacy_cost(request.planned))
    if request.decided_at is not None:
        message.decided_at.CopyFrom(_timestamp(request.decided_at))
    if approval is not None:
        message.approval.CopyFrom(_approval_message(unit, approval))
    return message


def rule_message(rule: Rule) -> pb.Rule:
    """A rule."""
    message = pb.Rule(
        rule_id=rule.rule_id,
        purposes=[_PURPOSES[p] for p in sorted(rule.purposes, key=lambda purpose: purpose.value)],
        dataset_names=sorted(rule.dataset_names),
        plan_hashes=sorted(rule.plan_hashes),
        requester_identities=sorted(rule.requesters),
        at_most=privacy_cost(rule.at_most),
        uses=rule.uses,
        created_by=rule.created_by,
        created_at=_timestamp(rule.created_at),
    )
    if rule.until is not None:
        message.until.CopyFrom(_timestamp(rule.until))
    if rule.revoked_at is not None:
        message.revoked_at.CopyFrom(_timestamp(rule.revoked_at))
    return message


def balance_message(balance: Balance) -> pb.Balance:
    """A balance."""
    return pb.Balance(
        dataset_name=balance.dataset_name,
        budget=privacy_cost(balance.budget),
        spent=privacy_cost(balance.spent),
        left=privacy_cost(balance.left),
    )


def entry_message(entry: LedgerEntry) -> pb.LedgerEntry:
    """A line of the ledger."""
    line = entry.line
    return pb.LedgerEntry(
        sequence=entry.sequence,
        at=_timestamp(entry.at),
        dataset_name=line.dataset_name,
        consumer=line.consumer,
        event=line.event,
        cost=privacy_cost(line.cost),
        approval_id=line.approval_id,
        study_id=line.study_id,
        round=line.round,
        kind=line.kind.value,
        count=line.count,
    )


def privacy_cost(cost: Spend) -> PrivacyCost:
    """Decimal text, exact."""
    return PrivacyCost(epsilon=epsilon_text(cost.epsilon), delta=decimal_text(cost.delta))


def _approval_message(unit: Unit, approval: Approval) -> pb.Approval:
    message = pb.Approval(
        approval_id=approval.approval_id,
        granted=privacy_cost(approval.granted),
        spent=privacy_cost(total(unit.spends(approval_id=approval.approval_id))),
        uses=approval.uses,
        uses_left=approval.uses - approval.used,
        rule_id=approval.rule_id,
        study_ids=[study.study_id for study in unit.studies_under(approval.approval_id)],
    )
    if approval.expires_at is not None:
        message.expires_at.CopyFrom(_timestamp(approval.expires_at))
    if approval.revoked_at is not None:
        message.revoked_at.CopyFrom(_timestamp(approval.revoked_at))
    return message


def _timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message


def _moment(message: Timestamp) -> datetime:
    try:
        return message.ToDatetime(tzinfo=UTC)
    except (ValueError, OverflowError) as error:
        raise InvalidInput("A point in time lies between the years 1 and 9999.") from error
