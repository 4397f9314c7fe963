"""A hospital node without data: it attaches over real mTLS, decides, and says that it contributed."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import grpc

from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from libs.rpc.identity import Identity
from tests.fakes.parties import FakeParty, attempt_of

BOUNDS = {"conv": 3, "relu": -1}


@dataclass
class Habits:
    """What this hospital does when asked."""

    approves: bool | None = True
    plan_hash: str | None = None
    trains: Callable[[pb.CoordinatorOrder], bool] = lambda _order: True
    fails_with: str = ""
    stops: Callable[[int], int] = lambda _round: 0
    """Which round's version it wants released, asked in a training round; 0 to train."""
    bounds: dict[str, int] | None = field(default_factory=lambda: dict(BOUNDS))


class FakeHospital:
    """One hospital. `orders` keeps everything that it was sent, over all attachments."""

    def __init__(self, identity: Identity, parties: list[FakeParty], habits: Habits) -> None:
        self.identity, self.habits = identity, habits
        self.orders: list[pb.CoordinatorOrder] = []
        self._parties = parties
        self._events: asyncio.Queue[pb.HospitalEvent] = asyncio.Queue()
        self._stream: asyncio.Task[None] | None = None
        self.error: grpc.aio.AioRpcError | None = None

    async def attach(self, stub: Any) -> None:
        """Dial in; returns once welcomed."""
        welcomed = asyncio.Event()
        self._events = asyncio.Queue()
        self._stream = asyncio.create_task(self._serve(stub, self._events, welcomed))
        async with asyncio.timeout(30):
            await welcomed.wait()

    async def detach(self) -> None:
        """Break the stream, as a crash would."""
        if self._stream is not None:
            self._stream.cancel()
            with suppress(asyncio.CancelledError):
                await self._stream

    def say(self, **event: Any) -> None:
        """Send one event."""
        self._events.put_nowait(pb.HospitalEvent(**event))

    def publish(self, name: str, *, images: int, tags: tuple[str, ...] = ("chest",)) -> str:
        """Publish a dataset; its id."""
        self.say(dataset_published=pb.Dataset(name=name, tags=tags, modality="CR", images=images))
        return f"{self.identity.name}/{name}"

    def ordered(self, kind: str) -> list[Any]:
        """The orders of one kind so far."""
        return [getattr(order, kind) for order in self.orders if order.WhichOneof("order") == kind]

    async def _serve(self, stub: Any, events: asyncio.Queue[Any], welcomed: asyncio.Event) -> None:
        async def sending() -> AsyncIterator[pb.HospitalEvent]:
            yield pb.HospitalEvent(hello=pb.HospitalHello(name=self.identity.name.title(), version="test"))
            while True:
                yield await events.get()

        try:
            async for order in stub.Attach(sending()):
                self.orders.append(order)
                welcomed.set()
                self._obey(order)
        except grpc.aio.AioRpcError as error:
            self.error = error

    def _obey(self, order: pb.CoordinatorOrder) -> None:
        kind = order.WhichOneof("order")
        if kind == "proposal" and self.habits.approves is not None:
            self.decide(order.proposal, approved=self.habits.approves)
        elif kind in ("train", "release"):
            self._contribute(order, getattr(order, kind).round)
        elif kind == "calibrate" and self.habits.bounds is not None:
            report = pb.CalibrationReport(study_id=order.calibrate.study_id, bound_bits=self.habits.bounds)
            self.say(calibration=report)

    def decide(self, proposal: pb.PlanProposal, *, approved: bool) -> None:
        """The owner's answer."""
        plan_hash = self.habits.plan_hash or proposal.plan_hash
        self.say(
            plan_decision=pb.PlanDecision(
                study_id=proposal.study_id, plan_hash=plan_hash, approved=approved, reason="our reason"
            )
        )

    def _contribute(self, order: pb.CoordinatorOrder, reference: Any) -> None:
        if not self.habits.trains(order):
            return
        study_id, number, attempt = attempt_of(reference)
        names = {"study_id": study_id, "round": number, "attempt": attempt}
        if self.habits.fails_with:
            self.say(task_failed=pb.TaskFailed(code="invalid_input", message=self.habits.fails_with, **names))
            return
        best_round = self.habits.stops(number) if order.WhichOneof("order") == "train" else 0
        if best_round:
            self.say(stop_proposed=pb.StopProposed(best_round=best_round, **names))
            return
        for party in self._parties:
            party.contribute((study_id, number, attempt), self.identity.uri)
        self.say(contribution_sent=pb.ContributionSent(**names))
