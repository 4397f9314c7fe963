"""Taking shares in and giving them out: who may, what exactly, and never half of it."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
import time
from collections.abc import AsyncIterator, Callable
from contextlib import ExitStack
from dataclasses import dataclass
from weakref import WeakValueDictionary

from libs.core.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PermissionDenied,
    TooLarge,
)
from libs.mpc.ring import Ring, RingArray
from libs.rpc.arrays import CHUNK_BYTES
from libs.rpc.identity import Identity
from libs.runtime.logging import get_logger
from libs.runtime.run_to_end import run_to_end
from services.smpc_party.domain import (
    ROUND_TABLE,
    Form,
    RoundEvent,
    RoundKey,
    RoundState,
    StoredShare,
    Terms,
    check_same_upload,
    move,
)
from services.smpc_party.ports import Rounds, Shares, ShareWriter

log = get_logger(__name__)

IDLE_S = 30.0
SHORTEST_S = 60.0
SLOWEST_BYTES_PER_S = 1 << 16
"""Half a megabit per second, ResNet-18 in 11 minutes. A slower line would hold its room for days."""


@dataclass(frozen=True)
class ModelVector:
    """The vector of one model version."""

    model_id: str


@dataclass(frozen=True)
class MetricsVector:
    """The summed metrics of one round."""

    key: RoundKey


@dataclass(frozen=True)
class ContributionVector:
    """The caller's contribution to one try of a round."""

    key: RoundKey
    attempt: int


Vector = ModelVector | MetricsVector | ContributionVector


@dataclass(frozen=True, repr=False)
class Upload:
    """The header of one upload. `seed` for a share that is PRG(seed), else the SHA-256 of what follows."""

    upload_id: str
    vector: Vector
    ring: Ring
    length: int
    seed: bytes | None
    sha256: bytes
    terms: Terms | None = None
    """What a hospital requires of the round. Only contributions have terms, and all of them do."""

    def __repr__(self) -> str:
        return f"Upload({self.upload_id}, {self.vector}, values=<redacted>)"


@dataclass(frozen=True)
class _Target:
    """Where an upload goes."""

    what: str
    context: str
    ring: Ring
    length: int
    stored_upload_id: str | None
    store: Callable[[str, StoredShare], bool]


class ShareDesk:
    """Receives and hands out shares.

    An upload reserves its room on the disk when it begins. So a caller has one at a time for each vector,
    each chunk comes within `idle_s`, and all of them within a time that grows with the vector's length.
    """

    def __init__(
        self, *, rounds: Rounds, shares: Shares, idle_s: float = IDLE_S, shortest_s: float = SHORTEST_S
    ) -> None:
        self._rounds, self._shares = rounds, shares
        self._idle_s, self._shortest_s = idle_s, shortest_s
        self._turns: WeakValueDictionary[tuple[Identity, Vector], asyncio.Lock] = WeakValueDictionary()

    async def put(self, upload: Upload, caller: Identity, chunks: AsyncIterator[bytes]) -> bool:
        """Store one share, all of it or nothing. True when this very upload had been stored before.

        Raises `PermissionDenied`, `NotFound`, `InvalidInput`, `TooLarge`, `AlreadyExists`, `StorageFull`, and
        `FailedPrecondition` when the round does not take contributions any more, `DeadlineExceeded`.
        """
        turn = self._turns.setdefault((caller, upload.vector), asyncio.Lock())
        allowed_s = self._shortest_s + upload.length * upload.ring.element_bytes / SLOWEST_BYTES_PER_S
        try:
            async with turn, asyncio.timeout(allowed_s):
                return await self._put(upload, caller, _in_time(chunks, idle_s=self._idle_s))
        except TimeoutError:
            raise DeadlineExceeded(
                f"The share did not arrive in time: at most {self._idle_s:g} s may pass between chunks, and "
                f"{allowed_s:.0f} s in all. Nothing was kept of it; send it again over a better line."
            ) from None

    async def _put(self, upload: Upload, caller: Identity, chunks: AsyncIterator[bytes]) -> bool:
        target = await asyncio.to_thread(self._target, upload, caller)
        if target.stored_upload_id is not None:
            return True
        if (upload.ring, upload.length) != (target.ring, target.length):
            raise InvalidInput(
                f"{target.what} takes {target.length} elements of {target.ring.bits} bits, "
                f"not {upload.length} of {upload.ring.bits}. Check the training plan and its version."
            )
        return not await self._receive(upload, target, chunks)

    async def is_stored(self, upload: Upload, caller: Identity) -> bool:
        """Whether all of this upload is on the disk. Raises as `put` does before anything is sent."""
        target = await asyncio.to_thread(self._target, upload, caller)
        return target.stored_upload_id is not None

    async def get(self, vector: Vector, caller: Identity) -> tuple[Ring, RingArray]:
        """This party's share in full, for a reader of the vector.

        Raises `PermissionDenied`, `NotFound`, and `FailedPrecondition` when it is not there yet or damaged.
        """
        share = await asyncio.to_thread(self._readable, vector, caller)
        return share.ring, await asyncio.to_thread(self._shares.load, share)

    async def _receive(self, upload: Upload, target: _Target, chunks: AsyncIterator[bytes]) -> bool:
        """Whether the share that arrives is now stored; False when the same upload was faster."""
        form = Form.VECTOR if upload.seed is None else Form.SEED
        with ExitStack() as unfinished:  # a client that hangs up cancels us, and leaves nothing either

            def begin() -> ShareWriter:
                writer = self._shares.begin(
                    context=target.context, form=form, ring=upload.ring, length=upload.length
                )
                unfinished.callback(writer.discard)
                return writer

            writer = await run_to_end(begin)
            if upload.seed is not None:
                await run_to_end(writer.write, upload.seed)
            digest = hashlib.sha256()
            async for chunk in chunks:
                if upload.seed is not None or not chunk:
                    raise InvalidInput("A share sent as a seed has no chunks, and no chunk is empty.")
                if len(chunk) > CHUNK_BYTES:
                    raise TooLarge(f"A chunk has at most {CHUNK_BYTES} bytes. Send smaller ones.")
                digest.update(chunk)
                await run_to_end(writer.write, chunk)
            if upload.seed is None and not hmac.compare_digest(digest.digest(), upload.sha256):
                raise InvalidInput("The share is not the one whose SHA-256 its header gave. Send it again.")
            return await run_to_end(self._keep, writer, upload.upload_id, target)

    def _keep(self, writer: ShareWriter, upload_id: str, target: _Target) -> bool:
        """Make the file permanent and name it in the index. It is deleted only if the index does not."""
        started_s = time.perf_counter()
        share = writer.finish()
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

    def _target(self, upload: Upload, caller: Identity) -> _Target:
        match upload.vector:
            case ModelVector(model_id):
                return self._model_target(upload, model_id, caller)
            case ContributionVector(key, attempt):
                return self._contribution_target(upload, key, attempt, caller)
            case MetricsVector():
                raise InvalidInput("The metrics of a round are computed by the parties; nobody uploads them.")

    def _model_target(self, upload: Upload, model_id: str, caller: Identity) -> _Target:
        record = self._rounds.model(model_id)
        if record.spec.dealer != caller:
            raise PermissionDenied(f"Model {model_id} is not {caller}'s to deal.")
        return _Target(
            f"Model {model_id}",
            record.spec.context,
            record.spec.ring,
            record.spec.length,
            _same(record.upload_id, upload.upload_id, what=f"Model {model_id}"),
            lambda upload_id, share: self._rounds.put_model_share(model_id, upload_id, share),
        )

    def _contribution_target(self, upload: Upload, key: RoundKey, attempt: int, caller: Identity) -> _Target:
        record = self._rounds.round(key)
        if caller not in {participant.hospital for participant in record.spec.participants}:
            raise PermissionDenied(f"{caller} does not take part in {key}.")
        record.spec.check_attempt(attempt)
        if upload.terms is None:
            raise InvalidInput("A contribution comes with the terms that its hospital's owner approved.")
        record.spec.check_terms(caller, upload.terms)
        what = f"The contribution of {caller} to {key}"
        held = {c.hospital: c.upload_id for c in self._rounds.contributions(key)}
        stored = _same(held.get(caller), upload.upload_id, what=what)
        if stored is None:
            move(ROUND_TABLE, record.state, RoundEvent.CONTRIBUTE, what=f"The {key}")
        return _Target(
            what,
            record.spec.contribution_context(caller),
            record.spec.ring,
            record.spec.length,
            stored,
            lambda upload_id, share: self._rounds.put_contribution(record.spec, caller, upload_id, share),
        )

    def _readable(self, vector: Vector, caller: Identity) -> StoredShare:
        match vector:
            case ModelVector(model_id):
                record = self._rounds.model(model_id)
                _check_reader(caller, record.spec.readers, what=f"model {model_id}")
                if record.share is None:
                    raise FailedPrecondition(
                        f"Model {model_id} was not dealt to this party yet. Deal it first."
                    )
                self._rounds.share_fetched(f"model {model_id}")
                return record.share
            case MetricsVector(key):
                return self._metrics(key, caller)
            case ContributionVector():
                raise PermissionDenied("A contribution cannot be fetched, by nobody; only its sum can be.")

    def _metrics(self, key: RoundKey, caller: Identity) -> StoredShare:
        record = self._rounds.round(key)
        _check_reader(caller, record.spec.metrics_readers, what=f"the metrics of {key}")
        if record.state is not RoundState.CLOSED or record.prepared is None:
            raise FailedPrecondition(f"The {key} is not closed yet. Ask again afterwards.")
        if record.prepared.metrics is None:
            raise NotFound(f"The {key} has no metrics.")
        self._rounds.share_fetched(f"metrics of {key}")
        return record.prepared.metrics


async def _in_time(chunks: AsyncIterator[bytes], *, idle_s: float) -> AsyncIterator[bytes]:
    """The chunks. Raises `TimeoutError` when one takes longer than `idle_s`."""
    while True:
        async with asyncio.timeout(idle_s):
            chunk = await anext(chunks, None)
        if chunk is None:
            return
        yield chunk


def _same(stored: str | None, offered: str, *, what: str) -> str | None:
    """The stored upload, which must be the offered one if there is any."""
    if stored is not None:
        check_same_upload(stored, offered, what=what)
    return stored


def _check_reader(caller: Identity, readers: frozenset[Identity], *, what: str) -> None:
    if caller not in readers:
        raise PermissionDenied(f"{caller} may not fetch {what}. Its readers were named when it was made.")
