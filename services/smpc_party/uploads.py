"""Taking shares in and giving them out: who may, what exactly, and never half of it.

What arrived of an upload that broke off is kept (`partials.py`), and the upload goes on from there.
"""

from __future__ import annotations

import asyncio
import hmac
import time
from collections.abc import AsyncIterator
from contextlib import ExitStack
from dataclasses import dataclass
from weakref import WeakValueDictionary

from libs.core.errors import (
    DeadlineExceeded,
    InvalidInput,
    StorageFull,
    TooLarge,
    Unavailable,
)
from libs.mpc.ring import Ring, RingArray
from libs.rpc.arrays import CHUNK_BYTES
from libs.rpc.identity import Identity
from libs.runtime.logging import get_logger
from libs.runtime.run_to_end import run_to_end
from services.smpc_party.domain import (
    Form,
    RoundKey,
)
from services.smpc_party.partials import TTL_S, Label, Partial, Partials
from services.smpc_party.ports import Rounds, Shares
from services.smpc_party.vector_access import Target, VectorAccess
from services.smpc_party.vectors import ContributionVector, Upload, Vector

log = get_logger(__name__)

IDLE_S = 30.0
SHORTEST_S = 60.0
SLOWEST_BYTES_PER_S = 1 << 16
"""Half a megabit per second, ResNet-18 in 11 minutes. A slower line would hold its room for days."""


@dataclass(frozen=True)
class Received:
    """How far an upload came: all of it is stored, or so many bytes are kept."""

    stored: bool
    received_bytes: int


@dataclass(frozen=True)
class _Running:
    """An upload that is being received, and the time that it has."""

    label: Label
    limit: asyncio.Timeout

    def interrupt(self) -> None:
        """Have its time run out now."""
        if not self.limit.expired():
            self.limit.reschedule(asyncio.get_running_loop().time())


class _BrokeOff(InvalidInput):
    """The chunks ended too early. To a server, a line that breaks looks just like that at first."""

    def __init__(self) -> None:
        super().__init__(
            "The share has fewer bytes than its header says. What arrived is kept for a while; send the "
            "rest, exactly `length` elements in all."
        )


class ShareDesk:
    """Receives and hands out shares.

    An upload reserves its room on the disk when it begins. So a caller has one at a time for each vector,
    each chunk comes within `idle_s`, and all of them within a time that grows with the vector's length. What
    was received by the time that it broke off is kept for `ttl_s`.
    """

    def __init__(
        self,
        *,
        rounds: Rounds,
        shares: Shares,
        idle_s: float = IDLE_S,
        shortest_s: float = SHORTEST_S,
        ttl_s: float = TTL_S,
    ) -> None:
        self._access, self._shares = VectorAccess(rounds), shares
        self._idle_s, self._shortest_s = idle_s, shortest_s
        self._partials = Partials(shares, ttl_s=ttl_s)
        self._turns: WeakValueDictionary[tuple[str, str], asyncio.Lock] = WeakValueDictionary()
        self._running: dict[tuple[str, str], _Running] = {}

    def start(self) -> None:
        """Let what an earlier process received end in time."""
        self._partials.start()

    async def stop(self) -> None:
        """End nothing any more: the next process goes on with what is kept."""
        self._partials.close()

    async def put(self, upload: Upload, caller: Identity, chunks: AsyncIterator[bytes]) -> bool:
        """Store one share, all of it or nothing. True when this very upload had been stored before.

        Raises `PermissionDenied`, `NotFound`, `InvalidInput`, `TooLarge`, `AlreadyExists`, `StorageFull`, and
        `FailedPrecondition` when the round does not take contributions any more, `DeadlineExceeded`,
        `Unavailable` when its offset is not where the party stands.
        """
        slot = _slot(upload.vector, caller)
        allowed_s = self._shortest_s + upload.length * upload.ring.element_bytes / SLOWEST_BYTES_PER_S
        try:
            async with self._turn(slot), asyncio.timeout(allowed_s) as limit:
                target = await asyncio.to_thread(self._access.target, upload, caller)
                if target.stored_upload_id is not None:
                    return True
                label = _label(upload, target, slot)
                self._running[slot] = _Running(label, limit)
                try:
                    chunks = _in_time(chunks, idle_s=self._idle_s)
                    return not await self._receive(upload, target, label, chunks)
                finally:
                    del self._running[slot]
        except TimeoutError:
            raise DeadlineExceeded(
                "The upload was ended before it was complete: its round is over, it goes on in another call, "
                f"or it was too slow (at most {self._idle_s:g} s between chunks, and {allowed_s:.0f} s in "
                "all). Ask how far it came, and send the rest."
            ) from None

    async def describe(self, upload: Upload, caller: Identity) -> Received:
        """How far this upload came. Raises as `put` does before anything is sent.

        A transfer of it that still runs is ended first: whoever asks has lost the line that it came on.
        """
        slot = _slot(upload.vector, caller)
        target = await asyncio.to_thread(self._access.target, upload, caller)
        label = _label(upload, target, slot)
        running = self._running.get(slot)
        if running is not None and running.label == label:
            running.interrupt()
        async with self._turn(slot):
            target = await asyncio.to_thread(self._access.target, upload, caller)
            if target.stored_upload_id is not None:
                return Received(True, 0)
            partial = await self._partials.take(label)
            if partial is None:
                return Received(False, 0)
            self._partials.keep(partial)
            return Received(False, partial.received_bytes)

    async def round_over(self, key: RoundKey) -> None:
        """The round takes no contribution any more: end those on their way, and forget what came of them."""
        name = str(key)
        for slot, running in list(self._running.items()):
            if running.label.round == name:
                running.interrupt()
                async with self._turn(slot):  # it has ended
                    pass
        self._partials.clear_round(name)

    async def get(self, vector: Vector, caller: Identity) -> tuple[Ring, RingArray]:
        """This party's share in full, for a reader of the vector.

        Raises `PermissionDenied`, `NotFound`, and `FailedPrecondition` when it is not there yet or damaged.
        """
        share = await asyncio.to_thread(self._access.readable, vector, caller)
        return share.ring, await asyncio.to_thread(self._shares.load, share)

    def _turn(self, slot: tuple[str, str]) -> asyncio.Lock:
        return self._turns.setdefault(slot, asyncio.Lock())

    async def _receive(
        self, upload: Upload, target: Target, label: Label, chunks: AsyncIterator[bytes]
    ) -> bool:
        """Whether the share that arrives is now stored; False when the same upload was faster.

        When the line broke or time ran out, what arrived is kept; after any other error nothing is.
        """
        with ExitStack() as unfinished:
            partial = await self._resumed(upload, label)
            if partial is None:
                partial = await self._begun(upload, target, label, unfinished)
            else:
                unfinished.callback(partial.discard)
            try:
                async for chunk in chunks:
                    _check_chunk(upload, chunk)
                    await run_to_end(partial.write, chunk)
                if partial.left_bytes:
                    raise _BrokeOff
                if upload.seed is None and not hmac.compare_digest(partial.sha256(), upload.sha256):
                    raise InvalidInput(
                        "The share is not the one whose SHA-256 its header gave. Send it again."
                    )
                return await run_to_end(self._keep, partial, upload.upload_id, target)
            except (asyncio.CancelledError, TimeoutError, _BrokeOff):
                if partial.resumable and upload.seed is None:
                    unfinished.pop_all()
                    self._partials.keep(partial)
                raise

    async def _resumed(self, upload: Upload, label: Label) -> Partial | None:
        """What there is of the upload, if it goes on from exactly there; None if it is to begin."""
        if not upload.offset:
            self._partials.clear(label.slot)
            return None
        partial = await self._partials.take(label)
        if partial is not None and partial.received_bytes == upload.offset:
            return partial
        received_bytes = 0
        if partial is not None:
            self._partials.keep(partial)
            received_bytes = partial.received_bytes
        raise Unavailable(
            f"The upload cannot go on from byte {upload.offset}: {received_bytes} are kept of it. Ask how "
            "far it came and send the rest."
        )

    async def _begun(self, upload: Upload, target: Target, label: Label, unfinished: ExitStack) -> Partial:
        """A new file, in place of older uploads that wait for their rest when there is no room."""
        seed = upload.seed

        def begin() -> Partial:
            writer = self._shares.begin(
                context=target.context,
                form=Form.VECTOR if seed is None else Form.SEED,
                ring=upload.ring,
                length=upload.length,
                note=label.to_json() if seed is None else None,
            )
            unfinished.callback(writer.discard)  # registered here: cancelled, nobody else knows it
            partial = Partial(label, writer)
            if seed is not None:
                partial.write(seed)
            return partial

        while True:
            try:
                return await run_to_end(begin)
            except StorageFull:
                if not self._partials.drop_oldest():
                    raise

    def _keep(self, partial: Partial, upload_id: str, target: Target) -> bool:
        """Make the file permanent and name it in the index. It is deleted only if the index does not."""
        started_s = time.perf_counter()
        share = partial.finish()
        seconds = round(time.perf_counter() - started_s, 3)
        new = False
        try:
            new = target.store(upload_id, share)
        finally:
            if not new:
                self._shares.delete([share])
        if new:
            log.info(
                "share_stored",
                what=target.what,
                form=share.form.value,
                size_bytes=share.size_bytes,
                seconds=seconds,
            )
        return new


async def _in_time(chunks: AsyncIterator[bytes], *, idle_s: float) -> AsyncIterator[bytes]:
    """The chunks. Raises `TimeoutError` when one takes longer than `idle_s`."""
    while True:
        async with asyncio.timeout(idle_s):
            chunk = await anext(chunks, None)
        if chunk is None:
            return
        yield chunk


def _check_chunk(upload: Upload, chunk: bytes) -> None:
    if upload.seed is not None or not chunk:
        raise InvalidInput("A share sent as a seed has no chunks, and no chunk is empty.")
    if len(chunk) > CHUNK_BYTES:
        raise TooLarge(f"A chunk has at most {CHUNK_BYTES} bytes. Send smaller ones.")


def _slot(vector: Vector, caller: Identity) -> tuple[str, str]:
    return caller.uri, repr(vector)


def _label(upload: Upload, target: Target, slot: tuple[str, str]) -> Label:
    caller, vector = slot
    key = upload.vector.key if isinstance(upload.vector, ContributionVector) else None
    parts = (upload.upload_id, upload.ring.bits, upload.length, upload.sha256.hex(), target.context)
    return Label(caller, vector, "" if key is None else str(key), " ".join(map(str, parts)))
