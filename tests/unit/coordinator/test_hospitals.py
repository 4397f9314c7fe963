"""Many hospitals speak at once: the event loop goes on turning, and who is put out meanwhile is not heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from typing import Any, cast

from libs.core.clock import SystemClock
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from libs.rpc.identity import Identity, Kind
from services.coordinator.attachments import Attachments
from services.coordinator.hospitals import Hospitals

HELLO = pb.HospitalEvent(hello=pb.HospitalHello(name="One"))
HEARTBEAT = pb.HospitalEvent(heartbeat=pb.Heartbeat())


class Rest:
    """The rest of a coordinator: admits everybody and keeps nothing. `heard` is told of every event."""

    def __init__(self, heard: Callable[[Identity, pb.HospitalEvent], None]) -> None:
        self.apply = heard

    def admit(self, _hospital: Identity, _key: str, *, name: str) -> None: ...
    def deliver(self, _hospital: str) -> None: ...
    def goodbye(self, _hospital: Identity) -> None: ...
    def hospital_attached(self, _hospital: str) -> None: ...
    def hospital_detached(self, _hospital: str) -> None: ...


def hospitals(attachments: Attachments, heard: Callable[[Identity, pb.HospitalEvent], None]) -> Hospitals:
    rest = cast(Any, Rest(heard))
    return Hospitals(
        attachments=attachments,
        associations=rest,
        catalogue=rest,
        access=rest,
        events=rest,
        journal=rest,
        welcome=pb.Welcome(),
    )


async def serve(
    served: Hospitals, name: str, events: AsyncIterator[pb.HospitalEvent], *, sending_s: float = 0.0
) -> None:
    """`sending_s`: how long an order takes on its way."""
    async for _ in served.serve(Identity(Kind.HOSPITAL, name), events, key_sha256=""):
        await asyncio.sleep(sending_s)


async def test_one_event_takes_effect_in_a_round_of_the_loop() -> None:
    rounds, heard_in = 0, list[int]()

    async def count() -> None:
        nonlocal rounds
        while True:
            rounds += 1
            await asyncio.sleep(0)

    async def talkative() -> AsyncIterator[pb.HospitalEvent]:
        yield HELLO
        for _ in range(5):
            yield HEARTBEAT

    attachments = Attachments(clock=SystemClock(), reattach_grace_s=10)
    served = hospitals(attachments, lambda _hospital, _event: heard_in.append(rounds))
    counting = asyncio.create_task(count())
    await asyncio.gather(*(serve(served, f"h{number}", talkative()) for number in range(10)))
    counting.cancel()
    assert len(heard_in) == 10 * 6
    assert len(set(heard_in)) == len(heard_in)


async def test_a_hospital_put_out_while_its_event_waits_is_not_heard() -> None:
    names, heard = {"one", "two"}, list[str]()
    attached = asyncio.Barrier(len(names))
    attachments = Attachments(clock=SystemClock(), reattach_grace_s=10)

    def hear(hospital: Identity, event: pb.HospitalEvent) -> None:
        if event.HasField("heartbeat"):
            heard.append(hospital.name)
            for other in names - {hospital.name}:
                attachments.expel(Identity(Kind.HOSPITAL, other).uri, None)

    async def one_heartbeat() -> AsyncIterator[pb.HospitalEvent]:
        yield HELLO
        await attached.wait()
        yield HEARTBEAT

    served = hospitals(attachments, hear)
    await asyncio.gather(*(serve(served, name, one_heartbeat(), sending_s=0.1) for name in names))
    assert len(heard) == 1
