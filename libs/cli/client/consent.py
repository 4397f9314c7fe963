"""What hospital staff say about the use of their data, on their own node. Each change has its own id."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

from libs.cli.client.pages import PAGE_SIZE, all_pages
from libs.cli.client.session import CALL_TIMEOUT_S, open_session, run
from libs.core.ids import new_id
from libs.rpc._generated.trefoil.hospital.v1 import access_pb2 as pb
from libs.rpc._generated.trefoil.types.v1.types_pb2 import PrivacyCost

Answer = TypeVar("Answer")


def list_requests(profile: Path, *, pending_only: bool = False) -> list[pb.AccessRequest]:
    """Oldest first."""

    async def ask() -> list[pb.AccessRequest]:
        async with open_session(profile) as session:

            async def fetch(token: str) -> pb.ListRequestsResponse:
                request = pb.ListRequestsRequest(
                    pending_only=pending_only, page_size=PAGE_SIZE, page_token=token
                )
                return await session.access.ListRequests(request, timeout=CALL_TIMEOUT_S)

            return await all_pages(fetch, lambda page: page.requests)

    return run(ask())


def get_request(profile: Path, request_id: str) -> pb.AccessRequest:
    """One of them. Raises NotFound."""
    return _call(
        profile, "GetRequest", pb.GetRequestRequest(request_id=request_id), pb.GetRequestResponse
    ).request


def decide(
    profile: Path,
    request_id: str,
    *,
    plan_hash: str,
    approve: bool,
    reason: str = "",
    granted: PrivacyCost | None = None,
    uses: int = 0,
    expires_at: datetime | None = None,
) -> pb.AccessRequest:
    """Approve or deny what has this hash; `granted` None and `uses` 0 mean as asked."""
    message = pb.DecideRequestRequest(
        call_id=new_id("call"),
        request_id=request_id,
        plan_hash=plan_hash,
        approve=approve,
        reason=reason,
        granted=granted,
        uses=uses,
    )
    if expires_at is not None:
        message.expires_at.FromDatetime(expires_at)
    return _call(profile, "DecideRequest", message, pb.DecideRequestResponse).request


def revoke(profile: Path, name: str, *, reason: str) -> pb.AccessRequest:
    """End an approval, named by itself or by its request."""
    message = pb.RevokeApprovalRequest(call_id=new_id("call"), approval_id=name, reason=reason)
    return _call(profile, "RevokeApproval", message, pb.RevokeApprovalResponse).request


def list_rules(profile: Path) -> list[pb.Rule]:
    """Oldest first, also those that are over."""
    return list(_call(profile, "ListRules", pb.ListRulesRequest(), pb.ListRulesResponse).rules)


def add_rule(profile: Path, rule: pb.Rule, *, call_id: str = "") -> pb.Rule:
    """The rule with its id. The same `call_id` adds it once."""
    message = pb.AddRuleRequest(call_id=call_id or new_id("call"), rule=rule)
    return _call(profile, "AddRule", message, pb.AddRuleResponse).rule


def revoke_rule(profile: Path, rule_id: str, *, with_approvals: bool) -> None:
    """And, with `with_approvals`, what it approved."""
    message = pb.RevokeRuleRequest(call_id=new_id("call"), rule_id=rule_id, revoke_approvals=with_approvals)
    _call(profile, "RevokeRule", message, pb.RevokeRuleResponse)


def set_budget(profile: Path, dataset: str, budget: PrivacyCost) -> pb.Balance:
    """What is left of it then."""
    message = pb.SetBudgetRequest(call_id=new_id("call"), dataset_name=dataset, budget=budget)
    return _call(profile, "SetBudget", message, pb.SetBudgetResponse).balance


def read_ledger(
    profile: Path, *, dataset: str, consumer: str
) -> tuple[Sequence[pb.LedgerEntry], Sequence[pb.Balance]]:
    """All entries, the oldest first, and the balances of the data sets."""

    async def ask() -> tuple[list[pb.LedgerEntry], list[pb.Balance]]:
        async with open_session(profile) as session:
            balances: list[pb.Balance] = []

            async def fetch(token: str) -> pb.ReadLedgerResponse:
                request = pb.ReadLedgerRequest(
                    dataset_name=dataset, consumer=consumer, page_size=PAGE_SIZE, page_token=token
                )
                page: pb.ReadLedgerResponse = await session.access.ReadLedger(request, timeout=CALL_TIMEOUT_S)
                balances[:] = page.balances
                return page

            return await all_pages(fetch, lambda page: page.entries), balances

    return run(ask())


def ask_for_statistics(
    profile: Path, dataset: str, *, epsilon: str, uses: int, reason: str
) -> pb.AccessRequest:
    """A request to one's own node."""
    message = pb.CreateRequestRequest(
        request_id=new_id("request"),
        purpose=pb.PURPOSE_STATISTICS,
        dataset_name=dataset,
        reason=reason,
        asked=PrivacyCost(epsilon=epsilon),
        uses=uses,
    )
    return _call(profile, "CreateRequest", message, pb.CreateRequestResponse).request


def release_statistics(
    profile: Path, dataset: str, *, approval_id: str, epsilon: str, call_id: str
) -> pb.ReleaseStatisticsResponse:
    """Counts with noise; the same `call_id` gives the same ones again."""
    message = pb.ReleaseStatisticsRequest(
        call_id=call_id or new_id("call"), dataset_name=dataset, approval_id=approval_id, epsilon=epsilon
    )
    return _call(profile, "ReleaseStatistics", message, pb.ReleaseStatisticsResponse)


def _call(profile: Path, method: str, message: Any, answer_type: type[Answer]) -> Answer:
    async def ask() -> Answer:
        async with open_session(profile) as session:
            answer: Answer = await getattr(session.access, method)(message, timeout=CALL_TIMEOUT_S)
            return answer

    return run(ask())
