"""Ring vectors arrive as they were sent, or not at all."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.core.errors import InvalidInput, TooLarge
from libs.mpc.ring import Ring
from libs.rpc.arrays import CHUNK_BYTES, ChunkCollector, chunks_of, from_bytes, sha256_of, to_bytes

RINGS = [Ring.RING_32, Ring.RING_64]


def vector(ring: Ring, length: int) -> np.ndarray:
    return np.random.default_rng(length).integers(0, 2**ring.bits, length, dtype=ring.dtype)


@given(
    ring=st.sampled_from(RINGS),
    length=st.integers(0, 300),
    chunk_bytes=st.integers(1, 257),
)
def test_any_cutting_into_chunks_puts_the_same_vector_together(
    ring: Ring, length: int, chunk_bytes: int
) -> None:
    sent = vector(ring, length)
    collector = ChunkCollector(ring=ring, length=length, max_bytes=8 * 300)
    for chunk in chunks_of(sent, ring, chunk_bytes=chunk_bytes):
        assert len(chunk) <= chunk_bytes
        collector.add(chunk)
    received = collector.finish(sha256=sha256_of(sent, ring))
    assert received.dtype == ring.dtype
    np.testing.assert_array_equal(received, sent)
    assert received.flags.writeable


def test_bytes_are_little_endian_and_row_major() -> None:
    array = np.array([[1, 2], [3, 4]], dtype="<u4")
    assert bytes(to_bytes(array.T, Ring.RING_32)).hex() == "01000000030000000200000004000000"
    assert sha256_of(array, Ring.RING_32) == hashlib.sha256(array.tobytes()).digest()
    np.testing.assert_array_equal(from_bytes(array.tobytes(), ring=Ring.RING_32, shape=(2, 2)), array)


@pytest.mark.parametrize("dtype", ["<i4", "<u8", "<f4", ">u4"])
def test_another_dtype_is_refused_and_not_cast(dtype: str) -> None:
    with pytest.raises(InvalidInput, match="not the ring's"):
        to_bytes(np.zeros(3, dtype=dtype), Ring.RING_32)


@pytest.mark.parametrize("length", [0, 11, 13, 16])
def test_bytes_of_another_length_are_refused(length: int) -> None:
    with pytest.raises(InvalidInput, match="that has 12"):
        from_bytes(bytes(length), ring=Ring.RING_32, shape=(3,))


def test_no_default_chunk_is_larger_than_one_mebibyte() -> None:
    sizes = [len(chunk) for chunk in chunks_of(np.zeros(CHUNK_BYTES // 4 + 1, dtype="<u4"), Ring.RING_32)]
    assert sizes == [CHUNK_BYTES, 4]


def test_a_vector_beyond_the_limit_is_refused_before_its_first_byte() -> None:
    with pytest.raises(TooLarge, match="beyond the 1000 bytes"):
        ChunkCollector(ring=Ring.RING_32, length=251, max_bytes=1000)
    with pytest.raises(TooLarge):
        ChunkCollector(ring=Ring.RING_64, length=2**63, max_bytes=1000)


def test_a_chunk_above_one_mebibyte_is_refused() -> None:
    collector = ChunkCollector(ring=Ring.RING_32, length=10**6, max_bytes=10**7)
    with pytest.raises(TooLarge, match="at most 1048576"):
        collector.add(bytes(CHUNK_BYTES + 1))


def test_more_bytes_than_announced_are_refused_when_they_come() -> None:
    collector = ChunkCollector(ring=Ring.RING_32, length=2, max_bytes=100)
    collector.add(bytes(7))
    with pytest.raises(InvalidInput, match="8 bytes that were announced"):
        collector.add(bytes(2))
    assert collector.received_bytes == 7


def test_an_empty_chunk_is_refused() -> None:
    with pytest.raises(InvalidInput):
        ChunkCollector(ring=Ring.RING_32, length=2, max_bytes=100).add(b"")


def test_missing_bytes_are_refused() -> None:
    collector = ChunkCollector(ring=Ring.RING_32, length=2, max_bytes=100)
    collector.add(bytes(4))
    with pytest.raises(InvalidInput, match="Received 4 bytes"):
        collector.finish(sha256=hashlib.sha256(bytes(4)).digest())


def test_damaged_bytes_are_refused() -> None:
    collector = ChunkCollector(ring=Ring.RING_32, length=2, max_bytes=100)
    collector.add(b"\1" + bytes(7))
    with pytest.raises(InvalidInput, match="SHA-256"):
        collector.finish(sha256=hashlib.sha256(bytes(8)).digest())
