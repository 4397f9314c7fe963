"""Additive sharing among three parties: x = x0 + x1 + x2. Any two shares together are uniform.

Sent compressed: two parties get a 16-byte seed and expand it, the third gets the vector
x - PRG(seed) - PRG(seed'). Which party gets the vector is drawn at random, so that the load is even.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from libs.core.errors import InvalidInput
from libs.core.ids import PARTIES
from libs.mpc.prg import SEED_BYTES, Prg, expand_seed
from libs.mpc.ring import Ring, RingArray

PIECE_ELEMENTS = 1 << 15
"""Masks drawn at once: they are still in the processor's cache when they are taken away."""


@dataclass(frozen=True, repr=False)
class SeedShare:
    """A share that is PRG(seed)."""

    seed: bytes

    def expand(self, length: int, ring: Ring) -> RingArray:
        """The share itself. Shape (length,)."""
        return expand_seed(self.seed, length, ring)

    def __repr__(self) -> str:
        return "SeedShare(<redacted>)"


@dataclass(frozen=True, repr=False)
class VectorShare:
    """A share sent in full."""

    values: RingArray

    def expand(self, length: int, ring: Ring) -> RingArray:
        """The share itself. Shape (length,)."""
        if self.values.shape != (length,) or self.values.dtype != ring.dtype:
            raise InvalidInput(f"The share is not a vector of {length} {ring.bits}-bit elements.")
        return self.values

    def __repr__(self) -> str:
        return f"VectorShare(shape={self.values.shape}, values=<redacted>)"


CompressedShare = SeedShare | VectorShare


def split_compressed(
    vector: RingArray, ring: Ring
) -> tuple[CompressedShare, CompressedShare, CompressedShare]:
    """Three shares of `vector` (length,), for parties 0, 1 and 2. Fresh randomness at every call."""
    if vector.ndim != 1 or vector.dtype != ring.dtype:
        raise InvalidInput(f"Only vectors of {ring.bits}-bit ring elements are split.")
    seeds = [SeedShare(secrets.token_bytes(SEED_BYTES)) for _ in range(len(PARTIES) - 1)]
    rest, streams = vector.copy(), [Prg(share.seed) for share in seeds]
    for start in range(0, len(rest), PIECE_ELEMENTS):
        piece = rest[start : start + PIECE_ELEMENTS]
        for stream in streams:
            piece -= stream.ring(piece.shape, ring)
    shares: list[CompressedShare] = [*seeds]
    shares.insert(secrets.randbelow(len(PARTIES)), VectorShare(rest))
    return shares[0], shares[1], shares[2]


def join(shares: Sequence[RingArray]) -> RingArray:
    """The secret behind three shares of one shape and ring."""
    if len(shares) != len(PARTIES):
        raise InvalidInput(f"A secret has {len(PARTIES)} shares, not {len(shares)}.")
    if len({(share.shape, share.dtype) for share in shares}) != 1:
        raise InvalidInput("The shares differ in length or ring, so they are not of one secret.")
    return shares[0] + shares[1] + shares[2]
