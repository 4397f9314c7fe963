"""The rings Z_2^32 and Z_2^64: numpy's unsigned integers, whose arithmetic wraps as the ring's does."""

from __future__ import annotations

import enum
from typing import Any

import numpy as np
import numpy.typing as npt

RingArray = npt.NDArray[Any]
"""Little-endian uint32 or uint64, of any shape."""


class Ring(enum.Enum):
    """The integers modulo 2^bits. Value: the number of bits."""

    RING_32 = 32
    RING_64 = 64

    @classmethod
    def of(cls, elements: RingArray) -> Ring:
        """The ring of an array of elements."""
        return cls(elements.dtype.itemsize * 8)

    @property
    def bits(self) -> int:
        """k, the number of bits of an element."""
        return self.value

    @property
    def element_bytes(self) -> int:
        """Bytes of one element on the wire and on disk."""
        return self.value // 8

    @property
    def dtype(self) -> np.dtype[Any]:
        """Unsigned, little-endian."""
        return np.dtype("<u4" if self is Ring.RING_32 else "<u8")

    @property
    def signed_dtype(self) -> np.dtype[Any]:
        """The same bits read as two's complement."""
        return np.dtype("<i4" if self is Ring.RING_32 else "<i8")

    def constant(self, value: int) -> Any:
        """`value` modulo 2^bits as a numpy scalar."""
        return self.dtype.type(value % (1 << self.bits))

    def zeros(self, shape: tuple[int, ...]) -> RingArray:
        """A ring array of zeros."""
        return np.zeros(shape, dtype=self.dtype)
