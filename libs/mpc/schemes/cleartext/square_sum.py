"""Sums of squares without security."""

from __future__ import annotations

import numpy as np

from libs.mpc.ring import Ring, RingArray


def square_sum(x: RingArray) -> RingArray:
    """The sum of x^2 over the last axis, x (32 bits) read as two's complement; modulo 2^64.

    A square has at most 62 bits, so only the sum wraps, and not where the masked one may be used.
    """
    squares = x.view(Ring.RING_32.signed_dtype).astype(np.int64) ** 2
    total: RingArray = squares.view(np.uint64).sum(axis=-1, dtype=np.uint64)
    return total
