"""Encrypted blobs by name: whole or not there at all. The pool's pieces and maskings live in one."""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from libs.core.errors import FailedPrecondition
from libs.core.secret import Secret
from services.smpc_party.adapters.full_disk import full_disk_explained, store_full
from services.smpc_party.adapters.sealed_file import CHUNK_BYTES, SealedWriter, read_sealed, sealed_size

_PART = ".part-"


class SealedFolder:
    """Its methods block on the disk; call them from a thread."""

    def __init__(self, folder: Path, key: Secret[bytes], *, max_bytes: int) -> None:
        self._folder, self._key, self._max_bytes = folder, key, max_bytes
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)

    @property
    def used_bytes(self) -> int:
        """What lies here now. Another thread may rename or delete meanwhile; such a file counts as gone."""
        return sum(map(_size_bytes, self._folder.iterdir()))

    def save(self, name: str, content: Iterable[memoryview], *, size_bytes: int) -> int:
        """Write a blob, to be read under the same name only; its bytes on the disk.

        Raises `StorageFull` when the folder's limit or the disk has no room; nothing is left then.
        """
        if self.used_bytes + sealed_size(size_bytes) > self._max_bytes:
            raise store_full()
        part = self._folder / f"{_PART}{secrets.token_hex(8)}"
        try:
            with full_disk_explained():
                descriptor = os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
                with os.fdopen(descriptor, "wb") as file:
                    sealed = SealedWriter(file, self._key, context=name)
                    for piece in content:
                        for start in range(0, len(piece), CHUNK_BYTES):
                            sealed.write(piece[start : start + CHUNK_BYTES])
                    sealed.finish()
                part.rename(self._folder / name)
        except BaseException:
            part.unlink(missing_ok=True)
            raise
        return sealed_size(size_bytes)

    def load(self, name: str) -> bytearray:
        """A blob's content. Raises `FailedPrecondition` when it is damaged or not there."""
        if not (self._folder / name).exists():
            raise FailedPrecondition("A stored piece of material is missing; it is not used.")
        content = bytearray()
        for chunk in read_sealed(self._folder / name, self._key, context=name):
            content += chunk
        return content

    def delete(self, name: str) -> None:
        """Remove a blob; nothing if there is none."""
        with suppress(FileNotFoundError):
            (self._folder / name).unlink()

    def clean(self, known: Iterable[str]) -> list[str]:
        """Remove every blob that is not `known`, left over from a crash; the known ones that are missing."""
        keep = set(known)
        there = {path.name for path in self._folder.iterdir()}
        for name in there - keep:
            self.delete(name)
        return sorted(keep - there)


def _size_bytes(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0
