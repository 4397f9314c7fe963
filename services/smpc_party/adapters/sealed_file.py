"""A file that only the holder of the storage key can read, change or move.

Layout: magic, a random 32-byte salt, then chunks of 1 MiB, each AES-256-GCM with its tag. The file's key
is HKDF-SHA256(storage key, salt, context), so it seals one file of one context: renaming a file to
another vector's name makes it unreadable. The nonce is the chunk's number and whether it is the last
(the STREAM construction, Hoang et al. 2015): chunks cannot be dropped, reordered, or cut off at the end.
"""

from __future__ import annotations

import os
import secrets
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from libs.core.errors import FailedPrecondition
from libs.core.secret import Secret

CHUNK_BYTES = 1 << 20
_MAGIC = b"TREFSHR1"
_SALT_BYTES = 32
_TAG_BYTES = 16
OVERHEAD_BYTES = len(_MAGIC) + _SALT_BYTES


def sealed_size(plain_bytes: int) -> int:
    """Bytes on disk for so many bytes of content."""
    chunks = max(1, -(-plain_bytes // CHUNK_BYTES))
    return OVERHEAD_BYTES + plain_bytes + chunks * _TAG_BYTES


class SealedWriter:
    """Encrypts what is written to an open file. Not complete, hence unreadable, before `finish`."""

    def __init__(self, file: BinaryIO, key: Secret[bytes], *, context: str) -> None:
        salt = secrets.token_bytes(_SALT_BYTES)
        self._file = file
        self._cipher = _file_cipher(key, salt, context)
        self._pending = bytearray()
        self._chunk = 0
        file.write(_MAGIC + salt)

    def write(self, data: bytes | memoryview) -> None:
        """Add content, of any length."""
        rest = memoryview(data)
        while rest:
            if len(self._pending) == CHUNK_BYTES:
                self._seal(self._pending, last=False)
                self._pending.clear()
            if not self._pending and len(rest) > CHUNK_BYTES:
                self._seal(rest[:CHUNK_BYTES], last=False)
                rest = rest[CHUNK_BYTES:]
                continue
            room = CHUNK_BYTES - len(self._pending)
            self._pending += rest[:room]
            rest = rest[room:]

    def finish(self) -> None:
        """Seal the last chunk and make sure that the file is on the disk."""
        self._seal(self._pending, last=True)
        self._file.flush()
        os.fsync(self._file.fileno())

    def _seal(self, chunk: bytearray | memoryview, *, last: bool) -> None:
        self._file.write(self._cipher.encrypt(_nonce(self._chunk, last=last), chunk, _MAGIC))
        self._file.flush()  # with the system, should this process be killed
        self._chunk += 1


def read_sealed(path: Path, key: Secret[bytes], *, context: str) -> Iterator[bytes]:
    """The content in pieces, each verified before it is handed out.

    Raises `FailedPrecondition` at the first piece that is not what was written, and when the end is missing.
    """
    try:
        with path.open("rb") as file:
            if file.read(len(_MAGIC)) != _MAGIC:
                raise _damaged()
            cipher = _file_cipher(key, file.read(_SALT_BYTES), context)
            chunk = file.read(CHUNK_BYTES + _TAG_BYTES)
            number = 0
            while True:
                following = file.read(CHUNK_BYTES + _TAG_BYTES)
                yield cipher.decrypt(_nonce(number, last=not following), chunk, _MAGIC)
                if not following:
                    return
                chunk, number = following, number + 1
    except (InvalidTag, OSError) as error:
        raise _damaged() from error


def read_unfinished(path: Path, key: Secret[bytes], *, context: str) -> Iterator[bytes]:
    """The whole pieces of a file that was never finished, each verified, up to the first that is not."""
    with path.open("rb") as file:
        if file.read(len(_MAGIC)) != _MAGIC or len(salt := file.read(_SALT_BYTES)) != _SALT_BYTES:
            return
        cipher = _file_cipher(key, salt, context)
        number = 0
        while len(chunk := file.read(CHUNK_BYTES + _TAG_BYTES)) == CHUNK_BYTES + _TAG_BYTES:
            try:
                piece = cipher.decrypt(_nonce(number, last=False), chunk, _MAGIC)
            except InvalidTag:
                return
            yield piece
            number += 1


def _file_cipher(key: Secret[bytes], salt: bytes, context: str) -> AESGCM:
    info = b"trefoil share file v1\0" + context.encode()
    return AESGCM(HKDF(algorithm=hashes.SHA256(), length=32, salt=salt, info=info).derive(key.expose()))


def _nonce(chunk: int, *, last: bool) -> bytes:
    return chunk.to_bytes(11, "big") + bytes([last])


def _damaged() -> FailedPrecondition:
    return FailedPrecondition(
        "This party's stored share is damaged, was changed on disk, or was written under another storage "
        "key; nothing of it was used. The party's operator must restore it from a backup."
    )
