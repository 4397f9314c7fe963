"""Requests, approvals, rules and ledger entries for people and for machines."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from typing import Any

from libs.cli.output import human_moment, plain
from libs.cli.privacy_options import in_words
from libs.rpc._generated.trefoil.hospital.v1 import access_pb2 as pb
from libs.rpc._generated.trefoil.types.v1.types_pb2 import PrivacyCost

PURPOSES = {
    pb.PURPOSE_TRAINING: "training",
    pb.PURPOSE_PREDICTION: "prediction",
    pb.PURPOSE_STATISTICS: "statistics",
}
STATES = {
    pb.REQUEST_STATE_PENDING: "pending",
    pb.REQUEST_STATE_APPROVED: "approved",
    pb.REQUEST_STATE_DENIED: "denied",
    pb.REQUEST_STATE_REVOKED: "revoked",
}


def request_view(request: pb.AccessRequest) -> dict[str, Any]:
    """For machines."""
    return {
        "request_id": request.request_id,
        "purpose": PURPOSES.get(request.purpose, "unknown"),
        "dataset": request.dataset_name,
        "dataset_version": request.dataset_version,
        "content_hash": request.content_hash,
        "plan_hash": request.plan_hash,
        "training_plan": json.loads(request.training_plan or b"{}"),
        "model_id": request.model_id,
        "requester": request.requester_identity,
        "requested_by": request.requested_by,
        "reason": request.reason,
        "asked": cost_view(request.asked),
        "planned": cost_view(request.planned) if request.HasField("planned") else None,
        "uses_asked": request.uses_asked,
        "received_at": _moment(request, "received_at"),
        "state": STATES.get(request.state, "unknown"),
        "approval": approval_view(request.approval) if request.HasField("approval") else None,
        "decision_reason": request.decision_reason,
        "decided_by": request.decided_by,
        "decided_at": _moment(request, "decided_at"),
        "study_id": request.study_id,
        "title": request.title,
        "hospitals": list(request.hospital_identities),
        "readers": list(request.reader_identities),
    }


def approval_view(approval: pb.Approval) -> dict[str, Any]:
    """For machines."""
    return {
        "approval_id": approval.approval_id,
        "granted": cost_view(approval.granted),
        "spent": cost_view(approval.spent),
        "uses": approval.uses,
        "uses_left": approval.uses_left,
        "expires_at": _moment(approval, "expires_at"),
        "rule_id": approval.rule_id,
        "revoked_at": _moment(approval, "revoked_at"),
        "studies": list(approval.study_ids),
    }


def request_text(request: pb.AccessRequest) -> str:
    """All that is approved with it, to be read before."""
    content = f"version {request.dataset_version}, content {plain(request.content_hash[:12])}…"
    asker = f"{plain(request.requester_identity)} ({plain(request.requested_by)})"
    lines = [
        f"[bold]{plain(request.reason or request.title)}[/], asked by {asker}",
        f"request         {plain(request.request_id)}",
        f"purpose         {PURPOSES.get(request.purpose, '?')}",
        f"data set        {plain(request.dataset_name)}, {content}",
        f"asked           {in_words(request.asked)}, uses {request.uses_asked}",
    ]
    if request.HasField("planned"):
        lines.append(f"costs here      {in_words(request.planned)} each time")
    if request.model_id:
        lines.append(f"model           {plain(request.model_id)}")
    if request.plan_hash:
        lines.append(f"plan hash       {plain(request.plan_hash)}")
    lines += [f"together with   {plain(uri)}" for uri in request.hospital_identities]
    lines += [f"sums go to      {plain(uri)}" for uri in request.reader_identities]
    for key, value in json.loads(request.training_plan or b"{}").items():
        lines.append(f"  {plain(key)} = {plain(json.dumps(value))}")
    return "\n".join([*lines, *_decision_lines(request)])


def request_row(request: pb.AccessRequest) -> list[object]:
    """For a table: request, purpose, data set, requester, asked, uses, state, approval."""
    approval = request.approval
    left = f"{approval.approval_id} ({approval.uses_left} of {approval.uses} left)"
    return [
        request.request_id,
        PURPOSES.get(request.purpose, "?"),
        request.dataset_name,
        request.requester_identity.rsplit("/", 1)[-1],
        in_words(request.asked),
        request.uses_asked,
        STATES.get(request.state, "?"),
        left if request.HasField("approval") else "",
    ]


def rule_view(rule: pb.Rule) -> dict[str, Any]:
    """For machines."""
    return {
        "rule_id": rule.rule_id,
        "purposes": [PURPOSES.get(purpose, "unknown") for purpose in rule.purposes],
        "datasets": list(rule.dataset_names),
        "plan_hashes": list(rule.plan_hashes),
        "requesters": list(rule.requester_identities),
        "at_most": cost_view(rule.at_most),
        "uses": rule.uses,
        "until": _moment(rule, "until"),
        "created_by": rule.created_by,
        "created_at": _moment(rule, "created_at"),
        "revoked_at": _moment(rule, "revoked_at"),
    }


def entry_view(entry: pb.LedgerEntry) -> dict[str, Any]:
    """For machines."""
    return {
        "sequence": entry.sequence,
        "at": _moment(entry, "at"),
        "kind": entry.kind,
        "dataset": entry.dataset_name,
        "consumer": entry.consumer,
        "event": json.loads(entry.event or b"null"),
        "cost": cost_view(entry.cost),
        "approval_id": entry.approval_id,
        "study_id": entry.study_id,
        "round": entry.round,
        "count": entry.count,
    }


def balance_view(balance: pb.Balance) -> dict[str, Any]:
    """For machines."""
    return {
        "dataset": balance.dataset_name,
        "budget": cost_view(balance.budget),
        "spent": cost_view(balance.spent),
        "left": cost_view(balance.left),
    }


def cost_view(cost: PrivacyCost) -> dict[str, str]:
    """Decimal texts, exact."""
    return {"epsilon": cost.epsilon, "delta": cost.delta}


def _decision_lines(request: pb.AccessRequest) -> list[str]:
    lines = [f"state           {STATES.get(request.state, '?')}"]
    if request.decided_by:
        said = f": {request.decision_reason}" if request.decision_reason else ""
        lines.append(plain(f"decided by      {request.decided_by}{said}"))
    if request.HasField("approval"):
        approval = request.approval
        left = f"{approval.uses_left} of {approval.uses} uses left"
        lines.append(f"approval        {plain(approval.approval_id)}, {in_words(approval.granted)}, {left}")
        if approval.HasField("expires_at"):
            lines.append(f"until           {human_moment(approval.expires_at.ToDatetime())}")
    return lines


def _moment(message: Any, field: str) -> datetime | None:
    if not message.HasField(field):
        return None
    moment: datetime = getattr(message, field).ToDatetime(tzinfo=UTC)
    return moment
