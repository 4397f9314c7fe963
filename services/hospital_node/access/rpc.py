"""AccessService: what the hospital's own staff can ask and say about the use of its data."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.message import Message

from libs.core.errors import AlreadyExists, InvalidInput, NotFound
from libs.dp.budget import Unbounded
from libs.rpc._generated.trefoil.hospital.v1 import access_pb2 as pb
from libs.rpc._generated.trefoil.hospital.v1.access_pb2_grpc import AccessServiceServicer
from libs.rpc.caller import current_actor, current_caller
from libs.runtime.logging import get_logger
from services.hospital_node.access import ledger, messages, requests, rules, statistics
from services.hospital_node.access.costs import parse_cost
from services.hospital_node.access.domain import AccessRequest, Origin, Purpose
from services.hospital_node.access.ports import Unit
from services.hospital_node.access.requests import Decided
from services.hospital_node.access.rules import MAX_USES
from services.hospital_node.access.service import Access
from services.hospital_node.access.statements import MAX_ID_CHARACTERS, MAX_REASON_CHARACTERS
from services.hospital_node.access.statistics import Consumer

DEFAULT_PAGE_SIZE = 100
MAX_PAGE_SIZE = 1000

log = get_logger(__name__)
Answer = TypeVar("Answer", bound=Message)


class AccessService(AccessServiceServicer):
    """Who may call what is in the access policy. Whatever changes something is done once for each call id."""

    def __init__(self, *, access: Access, consent_changed: Callable[[], Awaitable[None]]) -> None:
        """`consent_changed` stops what may no longer run."""
        self._access, self._store, self._consent_changed = access, access.store, consent_changed
        self._deciding: set[asyncio.Task[Any]] = set()

    # ------------------------------------------------------------ requests and approvals

    async def ListRequests(self, request: pb.ListRequestsRequest, context: Any) -> pb.ListRequestsResponse:
        """Oldest first. A page's token is the last request on it."""
        size = _page_size(request.page_size)

        def work(unit: Unit) -> pb.ListRequestsResponse:
            found = unit.requests(pending_only=request.pending_only, after=request.page_token, limit=size + 1)
            page = found[:size]
            return pb.ListRequestsResponse(
                requests=[messages.request_message(unit, one) for one in page],
                next_page_token=page[-1].request_id if len(found) > size else "",
            )

        return await self._store.run(work)

    async def GetRequest(self, request: pb.GetRequestRequest, context: Any) -> pb.GetRequestResponse:
        """One of them, with the plan to be read."""

        def work(unit: Unit) -> pb.GetRequestResponse:
            found = unit.request(request.request_id)
            if found is None:
                raise NotFound(f"There is no request {request.request_id!r} here. See: trefoil request list")
            return pb.GetRequestResponse(request=messages.request_message(unit, found))

        return await self._store.run(work)

    async def CreateRequest(self, request: pb.CreateRequestRequest, context: Any) -> pb.CreateRequestResponse:
        """Ask for statistics of a data set of this hospital, as one of its staff."""
        consumer = _consumer()

        def work(unit: Unit) -> pb.CreateRequestResponse:
            if unit.request(request.request_id) is not None:
                raise AlreadyExists("Another request has this id. Give each request an id of its own.")
            asked = parse_own(request, consumer=consumer, now=unit.now)
            decided = requests.receive(unit, asked)
            return pb.CreateRequestResponse(request=_message(unit, decided))

        return await self._store.answer(
            actor=current_actor(), message=request, answer_type=pb.CreateRequestResponse, work=work
        )

    async def DecideRequest(self, request: pb.DecideRequestRequest, context: Any) -> pb.DecideRequestResponse:
        """Approve, narrow or deny exactly what was asked, by its hash where there is a plan."""
        actor, decision = current_actor(), messages.parse_decision(request)
        done: list[Decided] = []

        def work(unit: Unit) -> pb.DecideRequestResponse:
            done[:] = [requests.decide(unit, request.request_id, decision, actor=actor)]
            return pb.DecideRequestResponse(request=_message(unit, done[0]))

        return await self._decided(
            self._store.answer(actor=actor, message=request, answer_type=pb.DecideRequestResponse, work=work),
            done,
        )

    async def RevokeApproval(
        self, request: pb.RevokeApprovalRequest, context: Any
    ) -> pb.RevokeApprovalResponse:
        """End an approval, stop what runs under it, and tell coordinator and parties."""
        actor = current_actor()
        done: list[Decided] = []

        def work(unit: Unit) -> pb.RevokeApprovalResponse:
            done[:] = [requests.revoke(unit, request.approval_id, actor=actor, reason=request.reason)]
            return pb.RevokeApprovalResponse(request=_message(unit, done[0]))

        return await self._decided(
            self._store.answer(
                actor=actor, message=request, answer_type=pb.RevokeApprovalResponse, work=work
            ),
            done,
        )

    # ------------------------------------------------------------ rules

    async def ListRules(self, request: pb.ListRulesRequest, context: Any) -> pb.ListRulesResponse:
        """All, also those that are over; the oldest first."""
        found = await self._store.run(lambda unit: unit.rules())
        return pb.ListRulesResponse(rules=[messages.rule_message(rule) for rule in found])

    async def AddRule(self, request: pb.AddRuleRequest, context: Any) -> pb.AddRuleResponse:
        """It approves what comes from now on, nothing that waits already."""
        actor = current_actor()

        def work(unit: Unit) -> pb.AddRuleResponse:
            rule = messages.parse_rule(request.rule, created_by=actor, now=unit.now)
            return pb.AddRuleResponse(rule=messages.rule_message(rules.add_rule(unit, rule)))

        return await self._store.answer(
            actor=actor, message=request, answer_type=pb.AddRuleResponse, work=work
        )

    async def RevokeRule(self, request: pb.RevokeRuleRequest, context: Any) -> pb.RevokeRuleResponse:
        """It approves nothing from now on; on request, nor does what it approved hold."""
        actor = current_actor()
        done: list[Decided] = []

        def work(unit: Unit) -> pb.RevokeRuleResponse:
            done.clear()
            rules.revoke_rule(unit, request.rule_id, actor=actor)
            if request.revoke_approvals:
                given = unit.approvals_by(rule_id=request.rule_id)
                reason = "The rule that approved it was revoked."
                done.extend(
                    requests.revoke(unit, approval.approval_id, actor=actor, reason=reason)
                    for approval in given
                )
            return pb.RevokeRuleResponse()

        return await self._decided(
            self._store.answer(actor=actor, message=request, answer_type=pb.RevokeRuleResponse, work=work),
            done,
        )

    # ------------------------------------------------------------ the ledger

    async def SetBudget(self, request: pb.SetBudgetRequest, context: Any) -> pb.SetBudgetResponse:
        """What may be taken of a data set altogether. What was taken before counts."""
        actor, budget = current_actor(), messages.parse_privacy_cost(request.budget)

        def work(unit: Unit) -> pb.SetBudgetResponse:
            balance = ledger.set_budget(unit, dataset_name=request.dataset_name, budget=budget, actor=actor)
            return pb.SetBudgetResponse(balance=messages.balance_message(balance))

        return await self._store.answer(
            actor=actor, message=request, answer_type=pb.SetBudgetResponse, work=work
        )

    async def ReadLedger(self, request: pb.ReadLedgerRequest, context: Any) -> pb.ReadLedgerResponse:
        """Oldest first. A page's token is the sequence number of its last entry."""
        size, after = _page_size(request.page_size), _sequence(request.page_token)

        def work(unit: Unit) -> pb.ReadLedgerResponse:
            found = unit.entries(
                dataset_name=request.dataset_name, consumer=request.consumer, after=after, limit=size + 1
            )
            page = found[:size]
            names = {request.dataset_name} if request.dataset_name else unit.ledger_datasets()
            return pb.ReadLedgerResponse(
                entries=[messages.entry_message(entry) for entry in page],
                next_page_token=str(page[-1].sequence) if len(found) > size else "",
                balances=[messages.balance_message(ledger.balance(unit, name)) for name in sorted(names)],
            )

        return await self._store.run(work)

    async def ReleaseStatistics(
        self, request: pb.ReleaseStatisticsRequest, context: Any
    ) -> pb.ReleaseStatisticsResponse:
        """Counts with noise. The same call again gives the same counts, for nothing more."""
        consumer = _consumer()
        epsilon = parse_cost(epsilon=request.epsilon, delta="").epsilon
        if isinstance(epsilon, Unbounded):
            raise InvalidInput("Statistics are released with noise only. Give an epsilon like 0.5.")

        def work(unit: Unit) -> pb.ReleaseStatisticsResponse:
            found = statistics.release(
                unit,
                dataset_name=request.dataset_name,
                approval_id=request.approval_id,
                epsilon=epsilon,
                consumer=consumer,
            )
            return pb.ReleaseStatisticsResponse(
                noisy_counts=found.noisy_counts,
                spent=messages.privacy_cost(found.spent),
                noise_deviation=found.noise_deviation,
            )

        return await self._store.answer(
            actor=current_actor(), message=request, answer_type=pb.ReleaseStatisticsResponse, work=work
        )

    async def _decided(self, answering: Coroutine[Any, Any, Answer], done: list[Decided]) -> Answer:
        """The answer. What was decided takes effect though the caller hangs up meanwhile."""

        async def to_the_end() -> Answer:
            answer = await answering
            await self._tell(done)
            return answer

        task = asyncio.create_task(to_the_end())
        self._deciding.add(task)
        task.add_done_callback(self._deciding.discard)
        return await asyncio.shield(task)

    async def _tell(self, done: list[Decided]) -> None:
        """What was decided now; nothing when the call had been answered before."""
        for decided in done:
            if decided.request is not None:
                log.info("request_decided", request=decided.request.request_id)
            self._access.tell(decided)
        await self._consent_changed()


def parse_own(request: pb.CreateRequestRequest, *, consumer: Consumer, now: datetime) -> AccessRequest:
    """A request by staff, whose content hash is not known yet. InvalidInput when it cannot be."""
    if messages.parse_purpose(request.purpose) is not Purpose.STATISTICS:
        raise InvalidInput(
            "Staff ask their own node for statistics. Training and predictions are asked for through the "
            "coordinator, signed by whoever asks."
        )
    if not 0 < len(request.request_id) <= MAX_ID_CHARACTERS or len(request.reason) > MAX_REASON_CHARACTERS:
        raise InvalidInput(f"A reason has at most {MAX_REASON_CHARACTERS} characters, and a request an id.")
    uses = request.uses or 1
    if uses > MAX_USES:
        raise InvalidInput(f"A request asks for 1 to {MAX_USES} uses.")
    asked = messages.parse_privacy_cost(request.asked)
    if isinstance(asked.epsilon, Unbounded):
        raise InvalidInput("Statistics are released with noise only. Ask for an epsilon like 0.5.")
    return AccessRequest(
        request_id=request.request_id,
        origin=Origin.STAFF,
        purpose=Purpose.STATISTICS,
        dataset_name=request.dataset_name,
        content_hash="",
        requester=consumer.identity,
        requested_by=consumer.subject,
        reason=request.reason,
        asked=asked,
        uses_asked=uses,
        received_at=now,
    )


def _consumer() -> Consumer:
    caller = current_caller()
    return Consumer(caller.identity.uri, "" if caller.token is None else caller.token.subject)


def _message(unit: Unit, decided: Decided) -> pb.AccessRequest | None:
    return None if decided.request is None else messages.request_message(unit, decided.request)


def _page_size(asked: int) -> int:
    if asked > MAX_PAGE_SIZE:
        raise InvalidInput(f"A page has at most {MAX_PAGE_SIZE} entries.")
    return asked or DEFAULT_PAGE_SIZE


def _sequence(token: str) -> int:
    if token and not (token.isascii() and token.isdigit() and len(token) < 19):
        raise InvalidInput("This is not a page token of the ledger. Begin without one.")
    return int(token or 0)
