"""The node's one link to the coordinator: a stream that this side opens, keeps open, and opens again.

Hospitals accept no connections from outside, so everything travels on this stream. It is stateless on
purpose: after each connect the node says which data sets it publishes and what its owner decided, the
coordinator repeats the orders that it has no answer to, and both sides treat a repetition as nothing new.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from importlib.metadata import version
from typing import Protocol

import grpc

from libs.core.errors import CallerError, TrefoilError, Unavailable
from libs.core.ids import PartyId
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from libs.rpc._generated.trefoil.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceStub
from libs.rpc.channel import translate, translated
from libs.runtime.logging import get_logger
from services.hospital_node import messages
from services.hospital_node.access.domain import StudyState, Told
from services.hospital_node.access.service import Decisions
from services.hospital_node.access.statements import Asked, Proposal
from services.hospital_node.domain import (
    Dataset,
    Order,
    Phase,
    Task,
    TaskKey,
)
from services.hospital_node.ports import Datasets

HEARTBEAT_S = 5.0
GOODBYE_WITHIN_S = 15.0
MAX_WAITING_PROGRESS = 64

log = get_logger(__name__)


class Inbox(Protocol):
    """Where the coordinator's messages go."""

    def parties_named(self, addresses: Mapping[PartyId, str]) -> None: ...

    async def plan_proposed(self, proposal: Proposal) -> None: ...

    async def access_asked(self, asked: Asked) -> None: ...

    def ordered(self, order: Order) -> None: ...

    async def contribution_refused(self, key: TaskKey) -> None: ...

    async def study_ended(self, study_id: str) -> None: ...


@dataclass(frozen=True)
class Backoff:
    """Waits between attempts: doubling from `first_s` to `most_s`, each shortened at random by up to half.

    The randomness keeps a hundred hospitals from coming back in the same instant after a restart.
    """

    first_s: float = 0.25
    most_s: float = 15.0

    def wait_s(self, failures: int, *, jitter: float) -> float:
        """Seconds before the next attempt; `jitter` is uniform in [0, 1)."""
        doubled = self.first_s * 2.0 ** min(failures, 30)
        return min(self.most_s, doubled) * (1 - jitter / 2)


class Outbox:
    """Implements `ports.Announcer` and `access.ports.DecisionListener`.

    What is said goes to the stream that is open, or nowhere.
    """

    def __init__(self) -> None:
        self._stream: asyncio.Queue[pb.HospitalEvent] | None = None

    def open(self) -> asyncio.Queue[pb.HospitalEvent]:
        """A new stream's queue; what a former one still held is dropped."""
        self._stream = asyncio.Queue()
        return self._stream

    def close(self) -> None:
        """The stream is gone."""
        self._stream = None

    def dataset_published(self, dataset: Dataset) -> None:
        self._put(messages.dataset_event(dataset))

    def dataset_withdrawn(self, name: str) -> None:
        self._put(messages.withdrawn_event(name))

    def plan_decided(self, *, study_id: str, plan_hash: str, approved: bool, reason: str) -> None:
        self._put(
            messages.plan_event(study_id=study_id, plan_hash=plan_hash, approved=approved, reason=reason)
        )

    def access_decided(self, decision: Told) -> None:
        self._put(messages.access_event(decision))

    def progressed(self, key: TaskKey, phase: Phase, fraction: float) -> None:
        # On a slow line, progress is what may be skipped.
        if self._stream is not None and self._stream.qsize() < MAX_WAITING_PROGRESS:
            self._put(messages.progress_event(key, phase, fraction))

    def task_done(self, task: Task) -> None:
        self._put(messages.done_event(task))

    def task_failed(self, key: TaskKey, *, code: str, message: str) -> None:
        self._put(messages.failed_event(key, code=code, message=message))

    def stop_proposed(self, key: TaskKey, *, best_round: int) -> None:
        self._put(messages.stop_event(key, best_round=best_round))

    def heartbeat(self) -> None:
        """A sign of life, when nothing else is waiting."""
        if self._stream is not None and self._stream.empty():
            self._put(messages.heartbeat_event())

    def _put(self, event: pb.HospitalEvent) -> None:
        if self._stream is not None:
            self._stream.put_nowait(event)


class CoordinatorLink:
    """Keeps the stream open until it is cancelled."""

    def __init__(
        self,
        *,
        name: str,
        connect: Callable[[], grpc.aio.Channel],
        outbox: Outbox,
        inbox: Inbox,
        datasets: Datasets,
        decisions: Callable[[], Awaitable[Decisions]],
        backoff: Backoff | None = None,
        heartbeat_s: float = HEARTBEAT_S,
        on_change: Callable[[bool], None] | None = None,
    ) -> None:
        """`on_change` hears of every welcome (True) and of the end of a stream that had one (False)."""
        self._name, self._connect = name, connect
        self._outbox, self._inbox = outbox, inbox
        self._datasets, self._decisions = datasets, decisions
        self._backoff, self._heartbeat_s = backoff or Backoff(), heartbeat_s
        self._attached, self._on_change = False, on_change
        self._refusal = ""

    @property
    def attached(self) -> bool:
        """Whether the coordinator has welcomed us on the stream that is open now."""
        return self._attached

    @property
    def refusal(self) -> str:
        """In the coordinator's words, why it does not let us attach; empty while it does, or is away."""
        return "" if self._attached else self._refusal

    async def say_goodbye(self) -> None:
        """Tell the coordinator that this hospital leaves; returns once it has heard. Raises TrefoilError."""

        async def leaving() -> AsyncIterator[pb.HospitalEvent]:
            yield messages.leave_event()

        with translated():
            async with self._connect() as channel:
                try:
                    async with asyncio.timeout(GOODBYE_WITHIN_S):
                        async for _ in CoordinatorServiceStub(channel).Attach(leaving()):
                            pass
                except TimeoutError:
                    raise Unavailable("The coordinator did not answer. Leave again later.") from None

    async def run(self) -> None:
        """Connect, serve, lose, wait, and again; for ever. Only cancelling ends it."""
        failures = 0
        while True:
            welcomed, reason = await self._attach_once()
            failures = 0 if welcomed else failures + 1
            wait_s = self._backoff.wait_s(failures, jitter=random.random())  # noqa: S311 - spreads load only
            log.warning(
                "coordinator_link_lost", reason=reason, was_attached=welcomed, wait_s=round(wait_s, 2)
            )
            await asyncio.sleep(wait_s)

    async def _attach_once(self) -> tuple[bool, str]:
        """One stream from its opening to its end: (whether we were welcomed, error code or "closed")."""
        queue = self._outbox.open()
        welcomed = False
        beats = asyncio.create_task(self._beat())
        try:
            # A fresh channel each time: its name is resolved and its certificates are read anew.
            async with self._connect() as channel:
                orders = CoordinatorServiceStub(channel).Attach(self._events(queue))
                async for message in orders:
                    welcomed = welcomed or message.WhichOneof("order") == "welcome"
                    self._set_attached(welcomed)
                    await self._receive(message)
        except grpc.aio.AioRpcError as error:
            return welcomed, self._noted(translate(error)).code
        except TrefoilError as error:
            return welcomed, error.code
        except Exception as error:  # a defect costs this stream, not the link: the next one begins afresh
            log.error("coordinator_link_broke", error=type(error).__name__)
            return welcomed, "internal"
        finally:
            self._set_attached(False)
            self._outbox.close()
            beats.cancel()
        return welcomed, "closed"

    def _noted(self, error: TrefoilError) -> TrefoilError:
        """Keep what staff should read: a refusal, which waiting alone does not cure."""
        self._refusal = str(error) if isinstance(error, CallerError) else ""
        return error

    def _set_attached(self, attached: bool) -> None:
        if attached is not self._attached:
            self._attached = attached
            if self._on_change is not None:
                self._on_change(attached)

    async def _events(self, queue: asyncio.Queue[pb.HospitalEvent]) -> AsyncIterator[pb.HospitalEvent]:
        """Who we are, what stands, and then whatever happens.

        The queue was open before the store is read: a fact of this moment may come twice, never not.
        """
        yield messages.hello_event(name=self._name, version=version("trefoil"))
        for name in await self._datasets.withdrawn_names():
            yield messages.withdrawn_event(name)
        for dataset in await self._datasets.datasets():
            yield messages.dataset_event(dataset)
        decided = await self._decisions()
        for study in decided.plans:
            yield messages.plan_event(
                study_id=study.study_id,
                plan_hash=study.plan_hash,
                approved=study.state is StudyState.ADMITTED,
                reason=study.reason,
            )
        for told in decided.requests:
            yield messages.access_event(told)
        while True:
            yield await queue.get()

    async def _beat(self) -> None:
        while True:
            await asyncio.sleep(self._heartbeat_s)
            self._outbox.heartbeat()

    async def _receive(self, message: pb.CoordinatorOrder) -> None:
        """Hand one message on. What we cannot make sense of is logged and changes nothing."""
        kind = message.WhichOneof("order")
        try:
            if kind == "welcome":
                self._inbox.parties_named(messages.parse_parties(message.welcome))
                log.info("coordinator_attached")
            elif kind == "proposal":
                await self._inbox.plan_proposed(messages.parse_proposal(message.proposal))
            elif kind == "access_request":
                await self._inbox.access_asked(messages.parse_asked(message.access_request))
            elif kind == "contribution_refused":
                await self._inbox.contribution_refused(messages.parse_refused(message.contribution_refused))
            elif kind == "study_ended":
                await self._inbox.study_ended(message.study_ended.study_id)
            elif kind in messages.ORDER_PARSERS:
                self._inbox.ordered(messages.ORDER_PARSERS[kind](message))
            else:
                log.warning("message_not_understood", kind=kind)
        except TrefoilError as error:
            log.warning("message_refused", kind=kind, code=error.code)
