"""Ring vectors as bytes: little-endian elements, cut into chunks, checked before they become an array."""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Iterator

import numpy as np

from libs.core.errors import InvalidInput, TooLarge
from libs.mpc.ring import Ring, RingArray

CHUNK_BYTES = 1024 * 1024
"""No chunk of a vector is larger, so that one upload never fills a connection that others use too."""

FIRST_CHUNK_BYTES = 16 * 1024
GROWTH = 64


def to_bytes(array: RingArray, ring: Ring) -> memoryview:
    """The little-endian bytes of a ring array, row-major; not a copy when it lies in memory that way.

    InvalidInput unless its dtype is the ring's: a silent cast would change the share.
    """
    if array.dtype != ring.dtype:
        raise InvalidInput(f"The array holds {array.dtype}, not the ring's {ring.dtype}.")
    return np.ascontiguousarray(array).reshape(-1).view(np.uint8).data


def from_bytes(data: bytes | bytearray | memoryview, *, ring: Ring, shape: tuple[int, ...]) -> RingArray:
    """The writable ring array of `shape` whose little-endian bytes are `data`; a copy.

    InvalidInput unless the length is exactly that of the shape.
    """
    expected = int(np.prod(shape, dtype=np.int64)) * ring.element_bytes
    if len(data) != expected:
        raise InvalidInput(f"Received {len(data)} bytes of an array that has {expected}. Send all of it.")
    return np.frombuffer(data, dtype=ring.dtype).reshape(shape).copy()


def sha256_of(array: RingArray, ring: Ring) -> bytes:
    """SHA-256 of the array's little-endian bytes, as share headers carry it."""
    return hashlib.sha256(to_bytes(array, ring)).digest()


def chunks_of(array: RingArray, ring: Ring, *, chunk_bytes: int = CHUNK_BYTES) -> Iterator[bytes]:
    """The array's bytes in order, in pieces of at most `chunk_bytes`; none for an empty array."""
    view = to_bytes(array, ring)
    for start in range(0, len(view), chunk_bytes):
        yield bytes(view[start : start + chunk_bytes])


def growing_chunks_of(array: RingArray, ring: Ring, *, offset: int = 0) -> Iterator[bytes]:
    """The array's bytes from byte `offset` on, in chunks of a 64th of what went before, up to `CHUNK_BYTES`.

    A message that is not there in full when the line breaks is lost. So this loses less than two 64ths of
    what had arrived and 16 KiB, and has 300 messages for 45 MB, where chunks of 16 KiB would be 2,700.
    """
    view, start = to_bytes(array, ring), offset
    while offset < len(view):
        size = min(max((offset - start) // GROWTH, FIRST_CHUNK_BYTES), CHUNK_BYTES)
        yield bytes(view[offset : offset + size])
        offset += size


class ChunkCollector:
    """Puts a chunked ring vector together, and never holds more bytes than were announced.

    The whole length is checked against the caller's limit before the first byte is kept.
    """

    def __init__(self, *, ring: Ring, length: int, max_bytes: int) -> None:
        self._ring, self._length = ring, length
        self._expected = length * ring.element_bytes
        if length < 0 or self._expected > max_bytes:
            raise TooLarge(f"A vector of {length} elements is beyond the {max_bytes} bytes accepted here.")
        self._data = bytearray()
        self._digest = hashlib.sha256()

    @property
    def received_bytes(self) -> int:
        """Bytes collected so far."""
        return len(self._data)

    def add(self, chunk: bytes) -> None:
        """Append a chunk.

        TooLarge above 1 MiB, InvalidInput if it is empty or goes beyond the announced length.
        """
        if len(chunk) > CHUNK_BYTES:
            raise TooLarge(f"A chunk has {len(chunk)} bytes; send at most {CHUNK_BYTES} in one.")
        if not chunk or len(self._data) + len(chunk) > self._expected:
            raise InvalidInput(f"The chunks do not add up to the {self._expected} bytes that were announced.")
        self._data += chunk
        self._digest.update(chunk)

    def finish(self, *, sha256: bytes) -> RingArray:
        """The vector, shape (length,).

        InvalidInput if bytes are missing or their SHA-256 is not the announced one.
        """
        vector = from_bytes(self._data, ring=self._ring, shape=(self._length,))
        if not hmac.compare_digest(self._digest.digest(), sha256):
            raise InvalidInput("The vector's SHA-256 is not the announced one. Send it again.")
        return vector
