"""Protocols as generators that never see a socket.

A program yields a `Round`: what it sends and what it awaits. Its driver delivers the messages and
sends back the inbox. The same program runs in one thread (`lockstep`) and over gRPC
(`libs/rpc/run_party.py`). The names, types and shapes of every awaited array are part of the
round, so a driver checks each message before the program sees it.
"""

from __future__ import annotations

from collections.abc import Generator, Mapping
from dataclasses import dataclass, field
from typing import Any, NewType, TypeVar

import numpy as np
import numpy.typing as npt

from libs.core.errors import PeerViolation
from libs.core.ids import PartyId

Message = Mapping[str, npt.NDArray[Any]]
"""Every array on the wire has a name."""

Inbox = Mapping[PartyId, Message]
T = TypeVar("T")
Label = NewType("Label", str)


@dataclass(frozen=True)
class ArraySpec:
    """What an awaited array must look like."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]

    @property
    def size_bytes(self) -> int:
        """Bytes of such an array."""
        return int(np.prod(self.shape, dtype=np.int64)) * self.dtype.itemsize


@dataclass(frozen=True)
class Round:
    """One exchange as one party sees it; it ends when every awaited peer has answered."""

    label: str
    sends: Mapping[PartyId, Message] = field(default_factory=dict)
    awaits: Mapping[PartyId, Mapping[str, ArraySpec]] = field(default_factory=dict)
    continues: bool = False
    """A further part of an exchange that was counted with its first part."""

    @property
    def counts(self) -> bool:
        """Whether this is a round: somebody is waited for, and not for another part of the same exchange."""
        return bool(self.awaits) and not self.continues


Program = Generator[Round, Inbox, T]


def check_message(
    message: Message,
    specs: Mapping[str, ArraySpec],
    *,
    computation: str,
    sender: int,
    label: str,
) -> None:
    """Raise `PeerViolation` unless `message` has exactly the awaited names, types and shapes."""
    if message.keys() != specs.keys():
        raise PeerViolation(
            computation=computation,
            sender=sender,
            rule=f"{label}: sent arrays {sorted(message)}, expected {sorted(specs)}",
        )
    for name, spec in specs.items():
        array = message[name]
        if array.dtype != spec.dtype or array.shape != spec.shape:
            raise PeerViolation(
                computation=computation,
                sender=sender,
                rule=f"{label}/{name}: sent {array.dtype}{array.shape}, expected {spec.dtype}{spec.shape}",
            )


def swap(label: str, peer: PartyId, name: str, mine: npt.NDArray[Any]) -> Program[npt.NDArray[Any]]:
    """Send `mine` to `peer` and receive its array of the same type and shape. Rounds: 1."""
    spec = ArraySpec(mine.dtype, mine.shape)
    inbox = yield Round(label, {peer: {name: mine}}, {peer: {name: spec}})
    return inbox[peer][name]
