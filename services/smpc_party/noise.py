"""This party's part of the noise on a round's sum: differential privacy of whole hospitals."""

from __future__ import annotations

import math
import secrets

from libs.dp.discrete_gaussian import discrete_gaussian
from libs.mpc.prg import SEED_BYTES, Prg
from libs.mpc.ring import RingArray
from services.smpc_party.domain import RoundSpec


def with_noise(update: RingArray, spec: RoundSpec) -> RingArray:
    """This party's share of the sum plus noise of its own, which nobody else knows. Shape (update_length,).

    Each party's noise has half the variance that the round promises: what any two add is enough, so a party
    that knows its own, or adds none, takes nothing away. Call it on the sum before it is rescaled or stored.
    """
    if not spec.noise_std:
        return update
    noise = discrete_gaussian(
        len(update), std=part_of(spec.noise_std), stream=Prg(secrets.token_bytes(SEED_BYTES))
    )
    # Negative numbers become their ring elements.
    return update + noise.astype(spec.ring.signed_dtype).view(spec.ring.dtype)


def part_of(std: int) -> int:
    """The least whole number whose square is at least half of std^2."""
    root = math.isqrt(std * std // 2)
    return root if 2 * root * root >= std * std else root + 1
