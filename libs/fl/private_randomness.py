"""Randomness that differential privacy rests on: unpredictable, and drawn once for one release.

Opacus draws from torch's Mersenne twister unless a library is installed that no longer builds. Here every bit
comes from AES in counter mode under a key that never leaves the hospital.
"""

from __future__ import annotations

import math
import secrets

import numpy as np
import numpy.typing as npt

from libs.core.secret import Secret
from libs.mpc.prg import SEED_BYTES, Prg

_BITS = 53
_ADDED = 4


class PrivateRandomness:
    """The secret choices of one run of training. Whoever knows the seed knows the noise."""

    __slots__ = ("_stream",)

    def __init__(self, seed: Secret[bytes]) -> None:
        self._stream = Prg(seed.expose())

    @classmethod
    def from_system(cls) -> PrivateRandomness:
        """A fresh one, from the system's generator."""
        return cls(Secret(secrets.token_bytes(SEED_BYTES)))

    def choose(self, count: int, *, probability: float) -> npt.NDArray[np.int64]:
        """Indices of those of `count` records that take part, each with this probability on its own."""
        return np.flatnonzero(self._uniform((count,)) <= probability)

    def gaussian(self, shape: tuple[int, ...], *, std: float) -> npt.NDArray[np.float64]:
        """Normal noise of this standard deviation, each value half the sum of four normal draws.

        A single draw in floating point reaches only some of the numbers, and which ones may betray what it
        was added to; a sum of four leaves 2^159 ways to search (Holohan and Braghin, 2021, section 5.1).
        """
        # Box and Muller: each radius and angle give two independent normal values.
        radius = np.sqrt(-2 * np.log(self._uniform((_ADDED // 2, *shape))))
        angle = 2 * np.pi * self._uniform((_ADDED // 2, *shape))
        noise: npt.NDArray[np.float64] = (radius * (np.cos(angle) + np.sin(angle))).sum(axis=0)
        return noise * (std / math.sqrt(_ADDED))

    def __repr__(self) -> str:
        return "PrivateRandomness(<redacted>)"

    def _uniform(self, shape: tuple[int, ...]) -> npt.NDArray[np.float64]:
        """Multiples of 2^-53 in (0, 1]: never 0, whose logarithm is infinite."""
        whole: npt.NDArray[np.uint64] = self._stream.array(shape, np.uint64)
        steps = (whole >> np.uint64(64 - _BITS)) + np.uint64(1)
        fractions: npt.NDArray[np.float64] = steps.astype(np.float64) * 2.0**-_BITS
        return fractions
