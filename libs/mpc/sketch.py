"""Random sketches of long vectors: 4,096 numbers that tell the norm of millions, from shares as well as in
clear.

A CountSketch (Charikar, Chen, Farach-Colton, ICALP 2002) throws every coordinate, under a random sign, into
one of `BUCKETS` buckets; the sum of the squared buckets is an unbiased estimate of |x|^2 (the tug-of-war
sketch of Alon, Matias, Szegedy, 1996, with one bucket a coordinate as Thorup and Zhang, SODA 2004, do it),
here from `SKETCHES` independent ones. It is linear over the ring, so the sketches of three additive shares
are additive shares of the sketch: each party makes its own and sends nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from libs.core.errors import InvalidInput
from libs.mpc.kernels.sketch import BUCKETS, SKETCHES, add_to_tables, new_tables, signed_buckets
from libs.mpc.prg import Prg
from libs.mpc.ring import Ring, RingArray

SKETCH_LENGTH = SKETCHES * BUCKETS

_CHUNK = 1 << 15
"""Coordinates at a time: 256 KiB of random words, which stay in the second-level cache until they are
used."""


class RunningSketches:
    """The sketches of `count` vectors (or shares of them) that come in parts; buckets and signs by `seed`.

    Coordinate i takes the i-th 64-bit word of AES-CTR under the seed, whoever computes it and in what parts.
    Vectors that come side by side have each word drawn once for all of them.
    """

    def __init__(self, seed: bytes, *, count: int) -> None:
        self._words, self._tables = Prg(seed), [new_tables() for _ in range(count)]

    def add(self, parts: Sequence[RingArray], *, total: RingArray | None = None) -> None:
        """The next coordinates of each vector, all (n,), 32-bit ring.

        They are added to `total` (n,) in the same pass, if there is one.
        """
        length = len(parts[0])
        if any(part.dtype != Ring.RING_32.dtype or part.shape != (length,) for part in parts):
            raise InvalidInput("Only vectors of the 32-bit ring are sketched, and side by side equal parts.")
        for start in range(0, length, _CHUNK):
            words = self._words.array((min(_CHUNK, length - start),), np.dtype("<u8"))
            for part, tables in zip(parts, self._tables, strict=True):
                chunk = part[start : start + _CHUNK]
                add_to_tables(chunk, words, tables)
                if total is not None:
                    total[start : start + _CHUNK] += chunk

    def buckets(self) -> RingArray:
        """The sketches of what was added. Shape (count, SKETCH_LENGTH), 32-bit ring."""
        return np.stack([signed_buckets(tables) for tables in self._tables])


def sketch(vector: RingArray, seed: bytes) -> RingArray:
    """The sketch of a vector (n,) that is here as a whole. Shape (SKETCH_LENGTH,), 32-bit ring."""
    running = RunningSketches(seed, count=1)
    running.add([vector])
    only: RingArray = running.buckets()[0]
    return only
