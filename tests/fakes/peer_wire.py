"""Two ends of a peer stream, and the wire between them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from libs.core.ids import PartyId
from libs.mpc.program import swap
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc.computation import Session
from libs.rpc.peer_link import PeerLink
from libs.rpc.run_party import run_party

P0, P1 = PartyId(0), PartyId(1)
Frame = party_pb2.PeerFrame
EXECUTOR = ThreadPoolExecutor(2)
U32 = np.dtype("<u4")


@dataclass
class Wire:
    """Both directions of a stream; a test may change or add frames."""

    low: PeerLink = field(default_factory=lambda: PeerLink(me=P0, peer=P1))
    high: PeerLink = field(default_factory=lambda: PeerLink(me=P1, peer=P0))
    tamper: Callable[[Frame], list[Frame]] = lambda frame: [frame]  # from low to high
    outcomes: list[BaseException | None] = field(default_factory=list)

    async def run(self) -> None:
        reads = [
            asyncio.create_task(self.high.read(self._tampered(self.low.outgoing()))),
            asyncio.create_task(self.low.read(self.high.outgoing())),
        ]
        self.outcomes = list(await asyncio.gather(*reads, return_exceptions=True))

    async def _tampered(self, frames: AsyncIterator[Frame]) -> AsyncIterator[Frame]:
        async for frame in frames:
            for changed in self.tamper(frame):
                yield changed

    def sessions(self, name: str = "c-1", *, max_bytes: int = 1 << 24) -> tuple[Session, Session]:
        return (
            Session(name, {P1: self.low}, max_bytes={P1: max_bytes}),
            Session(name, {P0: self.high}, max_bytes={P0: max_bytes}),
        )


@asynccontextmanager
async def connected(wire: Wire | None = None) -> AsyncIterator[Wire]:
    wire = wire or Wire()
    running = asyncio.create_task(wire.run())
    for link in (wire.low, wire.high):
        while link._key is None and not running.done():  # noqa: ASYNC110 - one turn of the loop
            await asyncio.sleep(0)
    try:
        yield wire
    finally:
        wire.low.close()
        wire.high.close()
        await running


async def exchange(session: Session, peer: PartyId, value: int, *, terms: bytes = b"terms") -> Any:
    """Join, then swap one array."""
    async with session:
        await session.join(terms, timeout_s=1.0)
        program = swap("step", peer, "m", np.full(3, value, U32))
        return await run_party(program, session, executor=EXECUTOR)


async def both(low: Any, high: Any) -> list[Any]:
    return await asyncio.gather(low, high, return_exceptions=True)
