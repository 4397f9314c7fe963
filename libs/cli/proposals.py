"""What staff do with training plans, on their own hospital's node."""

from __future__ import annotations

import json
from datetime import UTC
from pathlib import Path
from typing import Any

from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
from libs.core.errors import NotFound
from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2

STATES = {
    hospital_pb2.Proposal.STATE_PENDING: "pending",
    hospital_pb2.Proposal.STATE_APPROVED: "approved",
    hospital_pb2.Proposal.STATE_DENIED: "denied",
    hospital_pb2.Proposal.STATE_ENDED: "ended",
}


def list_proposals(profile: Path, *, pending_only: bool = False) -> list[hospital_pb2.Proposal]:
    """The plans that ask for this hospital's data."""

    async def ask() -> list[hospital_pb2.Proposal]:
        async with open_session(profile) as session:
            request = hospital_pb2.ListProposalsRequest(pending_only=pending_only)
            return list((await session.hospital.ListProposals(request, timeout=CALL_TIMEOUT_S)).proposals)

    return run(ask())


def find_proposal(profile: Path, study_id: str) -> hospital_pb2.Proposal:
    """The plan of one study. Raises `NotFound` when that study does not ask for this hospital's data."""
    for proposal in list_proposals(profile):
        if proposal.study_id == study_id:
            return proposal
    raise NotFound(f"Study {study_id} does not ask for this hospital's data. See: trefoil study proposals")


def decide(
    profile: Path, study_id: str, *, plan_hash: str, approve: bool, reason: str
) -> hospital_pb2.Proposal:
    """Approve or deny the plan with this hash."""

    async def ask() -> hospital_pb2.Proposal:
        async with open_session(profile) as session:
            request = hospital_pb2.DecideProposalRequest(
                study_id=study_id, plan_hash=plan_hash, approve=approve, reason=reason
            )
            return (await session.hospital.DecideProposal(request, timeout=CALL_TIMEOUT_S)).proposal

    return run(ask())


def view(proposal: hospital_pb2.Proposal) -> dict[str, Any]:
    """For machines."""
    return {
        "study_id": proposal.study_id,
        "title": proposal.title,
        "requested_by": proposal.requested_by,
        "dataset": proposal.dataset_name,
        "plan_hash": proposal.plan_hash,
        "training_plan": json.loads(proposal.training_plan or b"{}"),
        "hospitals": list(proposal.hospital_identities),
        "readers": list(proposal.reader_identities),
        "decision": STATES.get(proposal.state, "unknown"),
        "received_at": proposal.received_at.ToDatetime(tzinfo=UTC),
    }
