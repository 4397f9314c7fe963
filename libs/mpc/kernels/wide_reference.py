"""The one-round comparison's kernels in plain numpy: slow, short, and the oracle of `wide.py`.

Shapes: n values; a one-hot vector of a block of b bits is planar, (words, n) of the smallest unsigned type
that holds 2^b bits, at most 64 a word. `lead` is true for the one evaluator that adds public constants.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.mpc.kernels.reference import rescale_public, rescale_secret
from libs.mpc.ring import RingArray

U8 = npt.NDArray[np.uint8]
Words = npt.NDArray[Any]

OPENED = 3
"""Bits opened for each value: N, P, G."""
BASIS = 4
"""Dealt functions of the three masks, besides the constant."""


@dataclass(frozen=True)
class WideWindow:
    """The bits [low, low + bits) as a sign bit above two blocks, the lower one never the smaller."""

    low: int
    bits: int

    @property
    def lower_bits(self) -> int:
        """Of the lower block."""
        return self.bits // 2

    @property
    def upper_bits(self) -> int:
        """Of the upper block, without the sign bit."""
        return self.bits - 1 - self.lower_bits

    @property
    def sign(self) -> int:
        """Position of the sign bit."""
        return self.low + self.bits - 1


def word_dtype(bits: int) -> np.dtype[np.unsignedinteger]:
    """Of the one-hot vector of a block of `bits` bits."""
    return np.dtype(f"<u{min(8, max(1, (1 << bits) // 8))}")


def words_of(bits: int) -> int:
    """Words of the one-hot vector of a block of `bits` bits."""
    return max(1, (1 << bits) // 64)


def _block(values: RingArray, low: int, bits: int) -> npt.NDArray[np.int64]:
    dtype = values.dtype.type
    block: npt.NDArray[np.int64] = ((values >> dtype(low)) & dtype((1 << bits) - 1)).astype(np.int64)
    return block


def _one_hot(block: npt.NDArray[np.int64], bits: int) -> Words:
    dtype = word_dtype(bits)
    word, bit = block // 64, (block % 64).astype(np.uint64)
    rows = [np.where(word == w, np.uint64(1) << bit, np.uint64(0)) for w in range(words_of(bits))]
    return np.stack(rows).astype(dtype)


def _less_equal(block: npt.NDArray[np.int64], hot: Words, bits: int) -> tuple[U8, U8]:
    """Shares of [M < R] and [M = R] from a share of R's one-hot vector."""
    width = min(64, 1 << bits)
    ones = np.stack([(hot[i // width] >> hot.dtype.type(i % width)) & 1 for i in range(1 << bits)])
    above = np.arange(1 << bits)[:, None] > block
    less = np.bitwise_xor.reduce(np.where(above, ones, 0), axis=0).astype(np.uint8)
    return less, np.take_along_axis(ones, block[None], axis=0)[0].astype(np.uint8)


def compare(m: RingArray, upper: Words, lower: Words, masks: U8, *, window: WideWindow, lead: bool) -> U8:
    """This evaluator's share of the bits N (without R's sign), P and G under its masks. (3, ceil(n/8))."""
    less, equal = _less_equal(
        _block(m, window.low + window.lower_bits, window.upper_bits), upper, window.upper_bits
    )
    if lead:
        less = less ^ _block(m, window.sign, 1).astype(np.uint8)
    rest, _ = _less_equal(_block(m, window.low, window.lower_bits), lower, window.lower_bits)
    planes = np.stack([less, equal, rest]) ^ np.stack([(masks >> np.uint8(i)) & 1 for i in range(OPENED)])
    return np.packbits(planes, axis=1, bitorder="little")


def one_hot_blocks(r: RingArray, *, window: WideWindow) -> tuple[Words, Words]:
    """What the dealer shares of the mask's bits: one-hot vectors of (upper block, lower block)."""
    upper = _block(r, window.low + window.lower_bits, window.upper_bits)
    lower = _block(r, window.low, window.lower_bits)
    return _one_hot(upper, window.upper_bits), _one_hot(lower, window.lower_bits)


def mask_basis(r: RingArray, masks: U8, *, window: WideWindow) -> RingArray:
    """a, (1-2a) p, (1-2a) g, (1-2a) p g of the masks of N, P, G, where a takes R's sign in. Shape (4, n)."""
    a, p, g = (((masks >> np.uint8(i)) & 1).astype(r.dtype) for i in range(OPENED))
    a ^= (r >> r.dtype.type(window.sign)) & r.dtype.type(1)
    sign = r.dtype.type(1) - (a + a)
    return np.stack([a, sign * p, sign * g, sign * p * g])


def dealt_values(
    r: RingArray, masks: U8, *, window: WideWindow, multiplier: int, shift: int, plain: bool
) -> RingArray:
    """What the dealer shares in the ring: the basis e, then e r; or e, T, e T, B, e B. Shape (8 or 14, n)."""
    e = mask_basis(r, masks, window=window)
    if plain:
        return np.concatenate([e, e * r])
    t, big = rescale_secret(r, multiplier=multiplier, shift=shift)
    return np.concatenate([e, t[None], e * t, big[None], e * big])


def coefficients(opened: U8, n: int, dtype: np.dtype[Any]) -> tuple[RingArray, RingArray]:
    """(c_0 (n,), c (4, n)) with [z > 0] = c_0 + sum c_i e_i, from the opened bits."""
    o = np.unpackbits(opened, axis=1, count=n, bitorder="little").astype(dtype)
    a, p, g = o
    one = dtype.type(1)
    s_a, s_p, s_g = (one - (bit + bit) for bit in o)
    zero = dtype.type(0)
    both = p * g
    c = np.stack(
        [
            s_a * (both + both - one),
            zero - s_a * g * s_p,
            zero - s_a * p * s_g,
            zero - s_a * s_p * s_g,
        ]
    )
    return one - a - s_a * both, c


def select(
    m: RingArray, opened: U8, dealt: RingArray, *, multiplier: int, shift: int, lead: bool
) -> RingArray:
    """This evaluator's share of relu(z) * multiplier / 2^shift, z = m - r. `dealt` (14, n)."""
    c0, c = coefficients(opened, len(m), m.dtype)
    public, wraps = rescale_public(m, multiplier=multiplier, shift=shift)
    keep = (c * dealt[:4]).sum(axis=0, dtype=m.dtype)
    if lead:
        keep = keep + c0
    t = c0 * dealt[4] + (c * dealt[5:9]).sum(axis=0, dtype=m.dtype)
    big = c0 * dealt[9] + (c * dealt[10:14]).sum(axis=0, dtype=m.dtype)
    share: RingArray = keep * public - t + wraps * big
    return share


def select_plain(m: RingArray, opened: U8, mask: RingArray, dealt: RingArray, *, lead: bool) -> RingArray:
    """This evaluator's share of relu(z), z = m - r, without rescaling. `mask` (n,): its half of r."""
    c0, c = coefficients(opened, len(m), m.dtype)
    keep = (c * dealt[:4]).sum(axis=0, dtype=m.dtype)
    if lead:
        keep = keep + c0
    share: RingArray = keep * m - c0 * mask - (c * dealt[4:8]).sum(axis=0, dtype=m.dtype)
    return share
