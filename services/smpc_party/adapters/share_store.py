"""Shares as encrypted files: whole or not there at all.

A share is written to `incoming/`, synced, and renamed into `shares/`; it counts once the index names it.
What the index does not name when the party starts is left over from a crash and is deleted, but for what has
a note beside it in `incoming/`: a large upload, which may go on from where it was.
"""

from __future__ import annotations

import json
import os
import secrets
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

import numpy as np

from libs.core.errors import Bug, InvalidInput
from libs.core.secret import Secret
from libs.mpc.prg import SEED_BYTES, Prg
from libs.mpc.ring import Ring, RingArray
from libs.rpc.arrays import to_bytes
from libs.runtime.private_files import require_private, write_private
from services.smpc_party.adapters.full_disk import full_disk_explained, store_full
from services.smpc_party.adapters.sealed_file import (
    CHUNK_BYTES,
    SealedWriter,
    read_sealed,
    read_unfinished,
    sealed_size,
)
from services.smpc_party.domain import Form, StoredShare
from services.smpc_party.ports import Unfinished

KEY_BYTES = 32
PIECE_BYTES = CHUNK_BYTES
"""Of what `pieces` gives: as large as what is verified at once."""
_NOTE = ".note"


class ShareStore:
    """One party's folder of shares. Its methods block on the disk; call them from a thread."""

    def __init__(self, folder: Path, key: Secret[bytes], *, quota_bytes: int | None) -> None:
        self._shares, self._incoming = folder / "shares", folder / "incoming"
        self._key, self._quota_bytes = key, quota_bytes
        self._lock = threading.Lock()
        for path in (folder, self._shares, self._incoming):
            path.mkdir(mode=0o700, parents=True, exist_ok=True)
        self._unfinished = {found.name: found for found in self._find_unfinished()}
        self._left_bytes = {name: _size(self._incoming / name) for name in self._unfinished}
        self._used_bytes = sum(map(_size, self._shares.iterdir())) + sum(self._left_bytes.values())

    def clean(self, known: Iterable[str]) -> int:
        """Delete what a crash left over: every file that is not in `known`, and nothing to go on with. How
        many there were.
        """
        keep = set(known)
        orphans = [path for path in self._shares.iterdir() if path.name not in keep]
        orphans += [
            path for path in self._incoming.iterdir() if path.name.removesuffix(_NOTE) not in self._unfinished
        ]
        for path in orphans:
            self._unlink(path)
        return len(orphans)

    def begin(
        self, *, context: str, form: Form, ring: Ring, length: int, note: str | None = None
    ) -> ShareWriter:
        """Start one share. Raises `StorageFull` when the quota has no room for all of it.

        The note is kept where pieces of the file can be read before its end: if there is more than one.
        """
        plain_bytes = SEED_BYTES if form is Form.SEED else length * ring.element_bytes
        name = secrets.token_hex(16)
        share = StoredShare(name, context, form, ring, length, sealed_size(plain_bytes))
        with self._lock:
            if self._quota_bytes is not None and self._used_bytes + share.size_bytes > self._quota_bytes:
                raise store_full()
            self._used_bytes += share.size_bytes
        part = self._incoming / name
        try:
            if note is not None and plain_bytes > CHUNK_BYTES:
                _write_note(part, share, note)
            return ShareWriter(self, share, plain_bytes, part, self._shares / name, self._key)
        except BaseException:
            _remove_part(part)
            self.release(share.size_bytes)
            raise

    def unfinished(self) -> Sequence[Unfinished]:
        """What there was at the start of shares with a note."""
        return tuple(self._unfinished.values())

    def resume(self, unfinished: Unfinished) -> tuple[ShareWriter, Iterator[bytes]] | None:
        """The share begun anew, and what is whole of the old file; None if it is gone.

        A new file, because a piece that was torn must not be sealed again under its nonce.
        """
        part = self._incoming / unfinished.name
        if not part.exists():
            return None
        self._give_back(unfinished)  # the new file takes the room of all of it
        writer = self.begin(
            context=unfinished.context,
            form=Form.VECTOR,
            ring=unfinished.ring,
            length=unfinished.length,
            note=unfinished.note,
        )
        return writer, read_unfinished(part, self._key, context=unfinished.context)

    def drop_unfinished(self, unfinished: Unfinished) -> None:
        """Delete it and its note, and give its room back."""
        self._give_back(unfinished)
        _remove_part(self._incoming / unfinished.name)

    def _give_back(self, unfinished: Unfinished) -> None:
        self._unfinished.pop(unfinished.name, None)
        self.release(self._left_bytes.pop(unfinished.name, 0))

    def _find_unfinished(self) -> Iterator[Unfinished]:
        for file in self._incoming.glob(f"*{_NOTE}"):
            part = file.with_suffix("")
            try:
                data = json.loads(file.read_text(encoding="utf-8"))
                ring, length = Ring(data["ring"]), int(data["length"])
                age_s = max(0.0, time.time() - part.stat().st_mtime)
                yield Unfinished(part.name, data["context"], ring, length, data["note"], age_s)
            except (OSError, ValueError, KeyError, TypeError):
                continue  # half of a pair, or half written: `clean` deletes it

    def save(self, values: RingArray, *, context: str, ring: Ring) -> StoredShare:
        """Store a share that this party computed. Shape (n,)."""
        writer = self.begin(context=context, form=Form.VECTOR, ring=ring, length=len(values))
        try:
            writer.write(to_bytes(values, ring))
            return writer.finish()
        except BaseException:
            writer.discard()
            raise

    def load(self, share: StoredShare) -> RingArray:
        """The share itself, a seed expanded. Shape (length,), writable.

        Raises `FailedPrecondition` when the file is damaged.
        """
        whole, filled = np.empty(share.length, dtype=share.ring.dtype), 0
        for piece in self.pieces(share):
            whole[filled : filled + len(piece)] = piece
            filled += len(piece)
        return whole

    def pieces(self, share: StoredShare) -> Iterator[RingArray]:
        """The share from its beginning to its end in arrays of `PIECE_BYTES`, only the last one shorter.

        Shares of one length and ring have their pieces at the same places. Adding them piece by piece needs
        no memory for a whole share, and finds each piece in the processor's cache. Read-only or not: copy a
        piece before changing it. What was made of earlier pieces counts only once the last one has come:
        raises `FailedPrecondition` at the first that is damaged, and when the end is missing.
        """
        content = read_sealed(self._shares / share.name, self._key, context=share.context)
        left = share.length
        if share.form is Form.SEED:
            stream = Prg(b"".join(content))
            while left:
                size = min(left, PIECE_BYTES // share.ring.element_bytes)
                yield stream.ring((size,), share.ring)
                left -= size
            return
        for chunk in content:
            left -= len(chunk) // share.ring.element_bytes
            if left < 0 or len(chunk) % share.ring.element_bytes:
                break
            yield np.frombuffer(chunk, dtype=share.ring.dtype)
        if left:
            raise Bug(f"The index and the file of {share.context} disagree about its length.")

    def delete(self, shares: Iterable[StoredShare]) -> None:
        """Delete files that the index no longer names."""
        for share in shares:
            self._unlink(self._shares / share.name)

    def release(self, size_bytes: int) -> None:
        """Give reserved room back."""
        with self._lock:
            self._used_bytes -= size_bytes

    def _unlink(self, path: Path) -> None:
        with suppress(FileNotFoundError):
            size = path.stat().st_size
            path.unlink()
            if path.parent == self._shares:
                self.release(size)


class ShareWriter:
    """One share on its way in. End it with `finish` or `discard`."""

    def __init__(
        self,
        store: ShareStore,
        share: StoredShare,
        plain_bytes: int,
        part: Path,
        whole: Path,
        key: Secret[bytes],
    ) -> None:
        self._store, self._share, self._part, self._whole = store, share, part, whole
        self._left_bytes = plain_bytes
        self._open = True
        with full_disk_explained():
            descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
            self._file = os.fdopen(descriptor, "wb")
            self._sealed = SealedWriter(self._file, key, context=share.context)

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes. Raises `InvalidInput` beyond the share's length, `StorageFull` when the disk is full."""
        self._left_bytes -= len(data)
        if self._left_bytes < 0:
            raise InvalidInput(
                "The share has more bytes than its header says. Send exactly `length` elements."
            )
        with full_disk_explained():
            self._sealed.write(data)

    @property
    def left_bytes(self) -> int:
        """What is missing."""
        return self._left_bytes

    def finish(self) -> StoredShare:
        """Make the file permanent. Raises `InvalidInput` when bytes are missing."""
        if self._left_bytes:
            raise InvalidInput(
                "The share has fewer bytes than its header says. Send exactly `length` elements."
            )
        with full_disk_explained():
            self._sealed.finish()
            self._file.close()
            self._part.rename(self._whole)
            _note_of(self._part).unlink(missing_ok=True)
            _sync_folder(self._whole.parent)
        self._open = False
        return self._share

    def discard(self) -> None:
        """Leave nothing behind. Does nothing after `finish`."""
        if not self._open:
            return
        self._open = False
        with suppress(OSError):  # closing flushes, and a full disk refuses that
            self._file.close()
        _remove_part(self._part)
        self._whole.unlink(missing_ok=True)
        self._store.release(self._share.size_bytes)


def _note_of(part: Path) -> Path:
    return part.with_name(part.name + _NOTE)


def _write_note(part: Path, share: StoredShare, note: str) -> None:
    """Of names and sizes only, as the index has them. Not synced: without it the upload begins anew."""
    data = {"context": share.context, "ring": share.ring.bits, "length": share.length, "note": note}
    with full_disk_explained():
        write_private(_note_of(part), json.dumps(data))


def _remove_part(part: Path) -> None:
    for path in (part, _note_of(part)):
        path.unlink(missing_ok=True)


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def read_storage_key(path: Path) -> Secret[bytes]:
    """The 32 bytes (hex) that `trefoil keys init` wrote, or that the operator mounts.

    Raises `InvalidInput` when there are none, and when everybody on the machine may read them.
    """
    try:
        require_private(path)
        key = bytes.fromhex(path.read_text(encoding="ascii").strip())
    except (OSError, ValueError):
        raise InvalidInput(
            f"{path} is not a readable storage key. Make one with: trefoil keys init"
        ) from None
    if len(key) != KEY_BYTES:
        raise InvalidInput(f"The storage key in {path} has {len(key)} bytes instead of {KEY_BYTES}.")
    return Secret(key)


def _sync_folder(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
