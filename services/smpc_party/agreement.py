"""How three parties close a round together, whichever of them dies when.

Each attempt begins with one exchange: what have I committed, what have I prepared, whose contributions do
I hold complete. All three see the same three answers, so all three decide the same:

1. Somebody committed attempt X: then everybody has X prepared (see below), and commits it.
2. Everybody has the same X prepared: commit it.
3. Otherwise nobody has committed, and nobody can commit an older attempt any more: compute afresh from
   the contributions that all three hold, or report that they are below the quorum. Where the round's terms
   ask for a check, it comes first, by a coin of this attempt, and all three see the same bits: what broke the
   rules is left out, and the quorum is counted again.

A party commits an attempt only after both others said that their result of it is on disk. So "somebody
committed X" implies "everybody prepared X", and a prepared result is replaced only in case 3.
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.core.errors import PeerViolation
from libs.core.ids import PARTIES, PartyId
from libs.mpc.program import ArraySpec, Inbox, Message, Program, Round
from libs.rpc.identity import Identity
from services.smpc_party.domain import RoundSpec, RoundState
from services.smpc_party.ports import Contribution, RoundRecord

_DIGEST_BYTES = 32
NOTHING = bytes(_DIGEST_BYTES)

Bytes = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Status:
    """Where one party stands. Digests, because names have no fixed length; `NOTHING` is none."""

    committed: bytes
    prepared: bytes
    uploads: tuple[bytes, ...]
    """For each participant, in the round's order, the upload that is complete here."""

    @classmethod
    def of(cls, record: RoundRecord, contributions: list[Contribution]) -> Status:
        """This party's status."""
        prepared = NOTHING if record.prepared is None else digest(record.prepared.computation_id)
        held = {contribution.hospital: digest(contribution.upload_id) for contribution in contributions}
        return cls(
            committed=prepared if record.state is RoundState.CLOSED else NOTHING,
            prepared=prepared,
            uploads=tuple(held.get(p.hospital, NOTHING) for p in record.spec.participants),
        )

    def message(self) -> Message:
        """For the wire."""
        uploads = np.frombuffer(b"".join(self.uploads), np.uint8).reshape(len(self.uploads), _DIGEST_BYTES)
        return {"committed": _array(self.committed), "prepared": _array(self.prepared), "uploads": uploads}

    @classmethod
    def from_message(cls, message: Message) -> Status:
        """From the wire; types and shapes were checked."""
        uploads = tuple(row.tobytes() for row in message["uploads"])
        return cls(message["committed"].tobytes(), message["prepared"].tobytes(), uploads)


@dataclass(frozen=True)
class Adopt:
    """Commit what was prepared under this attempt."""

    attempt: bytes


@dataclass(frozen=True)
class Compute:
    """Add the contributions of these hospitals."""

    survivors: tuple[Identity, ...]
    refused: tuple[Identity, ...] = ()
    """Those that the check left out; known only after it."""


@dataclass(frozen=True)
class FallShort:
    """Too few contributions are complete at all three parties, and within the round's rules."""

    survivors: tuple[Identity, ...]
    refused: tuple[Identity, ...] = ()


Decision = Adopt | Compute | FallShort


def exchange_status(me: PartyId, mine: Status) -> Program[dict[PartyId, Status]]:
    """Everybody's status. Rounds: 1."""
    count = len(mine.uploads)
    specs = dict.fromkeys(("committed", "prepared"), _DIGEST)
    inbox = yield from _broadcast(
        me, "status", mine.message(), {**specs, "uploads": ArraySpec(_U8, (count, _DIGEST_BYTES))}
    )
    return {me: mine, **{sender: Status.from_message(message) for sender, message in inbox.items()}}


def confirm_prepared(me: PartyId, computation_id: str) -> Program[None]:
    """Returns once both peers said that their result of this attempt is on disk. Rounds: 1."""
    mine = digest(computation_id)
    inbox = yield from _broadcast(me, "prepared", {"attempt": _array(mine)}, {"attempt": _DIGEST})
    for sender, message in inbox.items():
        if message["attempt"].tobytes() != mine:
            rule = "confirmed another attempt than this one"
            raise PeerViolation(computation=computation_id, sender=int(sender), rule=rule)


def decide(spec: RoundSpec, statuses: Mapping[PartyId, Status]) -> Decision:
    """What follows from the three statuses; the same at every party."""
    committed = {status.committed for status in statuses.values()} - {NOTHING}
    prepared = {status.prepared for status in statuses.values()}
    if committed:
        # more than one is impossible; min() keeps the decision equal everywhere even so
        return Adopt(min(committed))
    if len(prepared) == 1 and prepared != {NOTHING}:
        return Adopt(prepared.pop())
    survivors = tuple(
        participant.hospital
        for i, participant in enumerate(spec.participants)
        if len({status.uploads[i] for status in statuses.values()}) == 1
        and statuses[PARTIES[0]].uploads[i] != NOTHING
    )
    return _with_quorum(spec, survivors, ())


def decide_after_check(
    spec: RoundSpec, candidates: Sequence[Identity], accepted: Sequence[bool]
) -> Compute | FallShort:
    """What follows from the check's bits about `candidates`, which all three parties have alike."""
    verdicts = list(zip(candidates, accepted, strict=True))
    survivors, refused = (tuple(h for h, passed in verdicts if passed is which) for which in (True, False))
    if spec.same and not survivors:
        refused = ()  # no majority: nobody can say who is wrong
    return _with_quorum(spec, survivors, refused)


def _with_quorum(
    spec: RoundSpec, survivors: tuple[Identity, ...], refused: tuple[Identity, ...]
) -> Compute | FallShort:
    return (Compute if len(survivors) >= spec.quorum else FallShort)(survivors, refused)


def digest(name: str) -> bytes:
    """A name of fixed length."""
    return hashlib.sha256(name.encode()).digest()


_U8: np.dtype[Any] = np.dtype(np.uint8)
_DIGEST = ArraySpec(_U8, (_DIGEST_BYTES,))


def _array(data: bytes) -> Bytes:
    return np.frombuffer(data, dtype=np.uint8)


def _broadcast(me: PartyId, label: str, message: Message, specs: Mapping[str, ArraySpec]) -> Program[Inbox]:
    peers = [party for party in PARTIES if party != me]
    inbox = yield Round(label, dict.fromkeys(peers, message), dict.fromkeys(peers, specs))
    return inbox
