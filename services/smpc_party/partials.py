"""Uploads that broke off: what arrived stays for a while, so that only the rest has to be sent.

One for each caller and vector. Each holds the room of its whole share, an open file and up to 1 MiB of
memory; it ends when the rest arrives, when another upload takes its place, when its round is over, after
`ttl_s`, or when its room is needed. What a killed party had sealed by then is found again at its next start.
Methods belong to the event loop; what blocks runs in threads.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
from dataclasses import asdict, dataclass, field

from libs.runtime.logging import get_logger
from libs.runtime.run_to_end import run_to_end
from services.smpc_party.domain import StoredShare
from services.smpc_party.ports import Shares, ShareWriter, Unfinished

log = get_logger(__name__)

TTL_S = 3600.0
MAX_KEPT = 256


@dataclass(frozen=True)
class Label:
    """Which upload a file belongs to: equal labels mean that the bytes are of the same vector."""

    caller: str
    vector: str
    round: str
    """Of a contribution; empty for a model."""
    upload: str
    """Id, ring, length, SHA-256 and context."""

    @property
    def slot(self) -> tuple[str, str]:
        """Where there is one upload at most."""
        return self.caller, self.vector

    def to_json(self) -> str:
        """For the note beside the file."""
        return json.dumps(asdict(self), sort_keys=True)


class Partial:
    """An upload as far as it came. Methods block on the disk."""

    def __init__(self, label: Label, writer: ShareWriter) -> None:
        self.label, self._writer = label, writer
        self._digest = hashlib.sha256()
        self.received_bytes = 0
        self._sound = True

    @property
    def resumable(self) -> bool:
        """Whether there is something to go on with: not after a write that failed half-way, or the end."""
        return self._sound and self.received_bytes > 0

    def write(self, data: bytes) -> None:
        """Add bytes; counted and hashed once they are taken."""
        self._sound = False
        self._writer.write(data)
        self._digest.update(data)
        self.received_bytes += len(data)
        self._sound = True

    def sha256(self) -> bytes:
        """Of all that arrived."""
        return self._digest.digest()

    @property
    def left_bytes(self) -> int:
        """What is missing."""
        return self._writer.left_bytes

    def finish(self) -> StoredShare:
        """Make it permanent."""
        self._sound = False
        return self._writer.finish()

    def discard(self) -> None:
        """Leave nothing behind; nothing after `finish`."""
        self._sound = False
        self._writer.discard()


@dataclass
class _Kept:
    partial: Partial
    timer: asyncio.TimerHandle


@dataclass
class Partials:
    """What is kept of uploads that broke off."""

    shares: Shares
    ttl_s: float = TTL_S
    _kept: dict[tuple[str, str], _Kept] = field(default_factory=dict)
    _left_over: dict[tuple[str, str], tuple[Label, Unfinished]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        """Find what the party held when it ended. Blocks."""
        for unfinished in self.shares.unfinished():
            label = _parsed(unfinished.note)
            if label is None or unfinished.age_s > self.ttl_s or label.slot in self._left_over:
                self.shares.drop_unfinished(unfinished)
            else:
                self._left_over[label.slot] = (label, unfinished)

    def start(self) -> None:
        """Let what was found at the start end in time, too."""
        for slot in self._left_over:
            asyncio.get_running_loop().call_later(self.ttl_s, self._drop_left_over, slot)

    async def take(self, label: Label) -> Partial | None:
        """What there is of this very upload, no longer kept; None if nothing. The taker keeps or ends it."""
        kept = self._kept.get(label.slot)
        if kept is not None and kept.partial.label == label:
            return self._pop(label.slot)
        found = self._left_over.get(label.slot)
        if found is None or found[0] != label:
            return None
        del self._left_over[label.slot]
        return await self._restored(label, found[1])

    def keep(self, partial: Partial) -> None:
        """Keep it, in place of any other in its slot, for `ttl_s` from now."""
        self._drop(partial.label.slot)
        if len(self._kept) >= MAX_KEPT:
            self.drop_oldest()
        timer = asyncio.get_running_loop().call_later(self.ttl_s, self._drop, partial.label.slot)
        self._kept[partial.label.slot] = _Kept(partial, timer)
        log.info("upload_suspended", vector=partial.label.vector, received_bytes=partial.received_bytes)

    def clear(self, slot: tuple[str, str]) -> None:
        """End whatever is kept there."""
        self._drop(slot)
        self._drop_left_over(slot)

    def clear_round(self, name: str) -> None:
        """End all contributions to a round that is over."""
        slots = [slot for slot, kept in self._kept.items() if kept.partial.label.round == name]
        slots += [slot for slot, (label, _) in self._left_over.items() if label.round == name]
        for slot in slots:
            self.clear(slot)

    def drop_oldest(self) -> bool:
        """Make room: end what has waited longest. False when there is nothing to end."""
        slot = next(iter(self._left_over), None) or next(iter(self._kept), None)
        if slot is None:
            return False
        self.clear(slot)
        return True

    def close(self) -> None:
        """The party stops; the files stay for its next start."""
        for kept in self._kept.values():
            kept.timer.cancel()

    async def _restored(self, label: Label, unfinished: Unfinished) -> Partial | None:
        """Read what the last process sealed into a file of its own, whose nonces nobody used."""
        made: list[Partial] = []

        def restore() -> None:
            found = self.shares.resume(unfinished)
            if found is None:
                return
            writer, pieces = found
            partial = Partial(label, writer)
            made.append(partial)
            for piece in pieces:
                partial.write(piece)
            self.shares.drop_unfinished(unfinished)

        try:
            await run_to_end(restore)
        except BaseException:
            for partial in made:
                partial.discard()
            self.shares.drop_unfinished(unfinished)
            raise
        return made[0] if made else None

    def _pop(self, slot: tuple[str, str]) -> Partial:
        kept = self._kept.pop(slot)
        kept.timer.cancel()
        return kept.partial

    def _drop(self, slot: tuple[str, str]) -> None:
        if slot in self._kept:
            self._pop(slot).discard()

    def _drop_left_over(self, slot: tuple[str, str]) -> None:
        if slot in self._left_over:
            self.shares.drop_unfinished(self._left_over.pop(slot)[1])


def _parsed(note: str) -> Label | None:
    try:
        return Label(**json.loads(note))
    except (ValueError, TypeError):
        return None
