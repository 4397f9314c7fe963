"""Drives a sans-I/O program over a transport: the same programs as in lockstep, one party of three."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from concurrent.futures import Executor
from dataclasses import dataclass
from typing import Generic, Protocol, TypeVar

from libs.core.ids import PartyId
from libs.mpc.program import ArraySpec, Inbox, Message, Program, Round

T = TypeVar("T")


class Transport(Protocol):
    """What a program's driver needs from the network; `libs.rpc.computation.Session` is one."""

    rounds: int

    async def send(self, receiver: PartyId, label: str, message: Message) -> None:
        """Deliver one message, in order of the calls."""
        ...

    async def receive(self, sender: PartyId, label: str, specs: Mapping[str, ArraySpec]) -> Message:
        """The sender's next message. Raises `PeerViolation` unless it has this label and these arrays."""
        ...


async def run_party(program: Program[T], transport: Transport, *, executor: Executor) -> T:
    """The program's result. Raises what the program or the transport raises.

    The steps between messages compute for up to seconds, so they run on `executor` and the event loop
    keeps answering. A cancelled step finishes on its thread; nobody sees its result.
    """
    loop = asyncio.get_running_loop()
    inbox: Inbox | None = None
    while True:
        step = await loop.run_in_executor(executor, _advance, program, inbox)
        if isinstance(step, _Done):
            return step.result
        for receiver, message in step.sends.items():
            await transport.send(receiver, step.label, message)
        inbox = {
            sender: await transport.receive(sender, step.label, specs)
            for sender, specs in step.awaits.items()
        }
        transport.rounds += step.counts


@dataclass(frozen=True)
class _Done(Generic[T]):
    """The end of a program as a value, because a StopIteration cannot leave a thread through a future."""

    result: T


def _advance(program: Program[T], inbox: Inbox | None) -> Round | _Done[T]:
    try:
        return program.send(inbox)  # type: ignore[arg-type]
    except StopIteration as done:
        return _Done(done.value)
