"""Requests for access to a hospital's data set: signed here, decided there."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from libs.cli.client.pages import PAGE_SIZE, all_pages
from libs.cli.client.session import CALL_TIMEOUT_S, plain_errors
from libs.core.errors import InvalidInput
from libs.core.ids import new_id
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc.statements import sign_statement

if TYPE_CHECKING:
    from libs.cli.client.session import Session
    from libs.fl.training_plan import TrainingPlan

STATE_NAMES = {
    coordinator_pb2.ACCESS_STATE_PENDING: "pending",
    coordinator_pb2.ACCESS_STATE_APPROVED: "approved",
    coordinator_pb2.ACCESS_STATE_DENIED: "denied",
    coordinator_pb2.ACCESS_STATE_REVOKED: "revoked",
    coordinator_pb2.ACCESS_STATE_EXPIRED: "expired",
    coordinator_pb2.ACCESS_STATE_USED_UP: "used up",
}


@plain_errors
async def request_access(
    session: Session,
    *,
    dataset_id: str,
    reason: str,
    plan: TrainingPlan | None = None,
    model_id: str = "",
    epsilon: str = "inf",
    delta: str = "0",
    uses: int = 1,
    request_id: str = "",
) -> coordinator_pb2.AccessRequest:
    """Ask the owner of a data set: for training with `plan`, or for predictions with `model_id`.

    `epsilon` and `delta` are exact decimal text ("inf": without differential privacy). The words are signed
    with the profile's private key, so nobody can change them on their way. The same `request_id` asks once.
    InvalidInput unless exactly one of `plan` and `model_id` is given.
    """
    if (plan is None) is not bool(model_id):
        raise InvalidInput("Ask for training with a plan, or for predictions with a model: one of them.")
    what = {"plan_hash": plan.hash} if plan is not None else {"model_id": model_id}
    words = {
        "request_id": request_id or new_id("access"),
        "dataset_id": dataset_id,
        "purpose": "prediction" if plan is None else "training",
        **what,
        "epsilon": epsilon,
        "delta": delta,
        "uses": uses,
        "reason": reason,
        "requested_at": datetime.now(UTC).isoformat(timespec="seconds"),
    }
    request = coordinator_pb2.RequestAccessRequest(
        statement=sign_statement("access-request", words, tls=session.profile.tls.files),
        training_plan=b"" if plan is None else plan.canonical_json(),
    )
    return (await session.coordinator.RequestAccess(request, timeout=CALL_TIMEOUT_S)).request


@plain_errors
async def list_access_requests(session: Session) -> list[coordinator_pb2.AccessRequest]:
    """One's own requests, oldest first; an operator's session sees everybody's."""

    async def fetch(token: str) -> coordinator_pb2.ListAccessRequestsResponse:
        request = coordinator_pb2.ListAccessRequestsRequest(page_size=PAGE_SIZE, page_token=token)
        return await session.coordinator.ListAccessRequests(request, timeout=CALL_TIMEOUT_S)

    return await all_pages(fetch, lambda page: page.requests)
