"""The noise that three parties put on a sum, each its own part: differential privacy of whole hospitals."""

from __future__ import annotations

import math
import secrets

from libs.dp.discrete_gaussian import discrete_gaussian
from libs.mpc.prg import SEED_BYTES, Prg
from libs.mpc.ring import Ring, RingArray


def noise_part(length: int, *, std: int, ring: Ring) -> RingArray:
    """One party's fresh part of noise, as ring elements. Shape (length,); zeros where `std` is 0.

    Each part has half the variance of `std`: what any two parties add is enough, so one that knows its own,
    or adds none, takes nothing away. All three together have 1.5 times the variance.
    """
    if not std:
        return ring.zeros((length,))
    noise = discrete_gaussian(length, std=part_of(std), stream=Prg(secrets.token_bytes(SEED_BYTES)))
    elements: RingArray = noise.astype(ring.signed_dtype).view(ring.dtype)
    return elements


def part_of(std: int) -> int:
    """The least whole number whose square is at least half of std^2."""
    root = math.isqrt(std * std // 2)
    return root if 2 * root * root >= std * std else root + 1
