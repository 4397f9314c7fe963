"""CountSketch of a share, as a compiled loop. `reference.sketch` is the oracle.

A coordinate's sign is the top bit of its index: t[b] gathers what is added to bucket b and t[b + buckets]
what is taken from it, which needs no arithmetic but one addition a table. Four tables of 2,048 words fill 32
KiB, the first-level cache of common processors.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from numba import njit

from libs.mpc.ring import Ring, RingArray

SKETCHES = 4
BUCKETS = 1024

_INDEX_BITS = 11
"""10 for the bucket and one for the sign; 4 * 11 of a coordinate's 64 random bits are used."""

_compiled = njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")


@_compiled
def _add_to_tables(values, words, tables):  # type: ignore[no-untyped-def]
    first, second, third, fourth = tables[0], tables[1], tables[2], tables[3]
    mask = np.uint64(2047)
    for i in range(values.size):
        value, word = values[i], words[i]
        first[word & mask] += value
        second[(word >> np.uint64(11)) & mask] += value
        third[(word >> np.uint64(22)) & mask] += value
        fourth[(word >> np.uint64(33)) & mask] += value


def new_tables() -> RingArray:
    """Empty tables. Shape (SKETCHES, 2 * BUCKETS)."""
    return Ring.RING_32.zeros((SKETCHES, 1 << _INDEX_BITS))


def add_to_tables(values: RingArray, words: npt.NDArray[np.uint64], tables: RingArray) -> None:
    """Add the coordinates `values` (n,) where their random `words` (n,) say. 32-bit ring."""
    _add_to_tables(values, words, tables)


def signed_buckets(tables: RingArray) -> RingArray:
    """The sketch: what was added less what was taken. Shape (SKETCHES * BUCKETS,)."""
    sketch: RingArray = (tables[:, :BUCKETS] - tables[:, BUCKETS:]).reshape(-1)
    return sketch


def warm_up() -> None:
    """Compile."""
    add_to_tables(Ring.RING_32.zeros((3,)), np.zeros(3, np.uint64), new_tables())
