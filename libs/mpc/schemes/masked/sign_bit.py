"""[z >= 0] as additive shares of a ring element: what `relu` multiplies by, alone. Two rounds of bits.

The comparison is `relu.py`'s: one-hot shares of the mask's 4-bit blocks, opened "less" and "equal" bits under
dealt masks, a polynomial in the dealer's products of masks, and one opening s = [z >= 0] xor b. Here the
dealer shares nothing but b besides, and [z >= 0] = s + (1 - 2s) b is linear in it. Everything that is sent is
bits under fresh masks that the receiver does not know, and s is as uniform as b; the result stays shared.

A mask may be compared under more than once, as in T - y and T + y for one opened y: what is dealt are shares
of its blocks under masks of their own, so a second comparison tells nothing about the first.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput
from libs.mpc.cost import Cost, costs
from libs.mpc.kernels import fused
from libs.mpc.kernels.tables import join_tables
from libs.mpc.program import Program, swap
from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.masked.roles import Evaluator
from libs.mpc.schemes.masked.tape import DealerTape, EvaluatorTape

_SIGN_MASK = np.uint16(15)
"""The bit of a value's 16 dealt masks that hides its sign."""


@dataclass(frozen=True)
class SignWindow:
    """Bits [low, low + bits) of m and of the mask decide.

    Right for -half <= z < half - 2^low with half = 2^(low + bits - 1), except that -2^low <= z < 0 may count
    as not negative: without the bits below `low` it is floor(z / 2^low) or one more that is compared. A value
    that is not negative is never taken for a negative one.
    """

    low: int
    bits: int
    ring: Ring

    def __post_init__(self) -> None:
        if self.bits not in {8, 12, 16, 20}:
            raise InvalidInput("A sign window has 8, 12, 16 or 20 bits.")
        if not 0 <= self.low <= self.ring.bits - self.bits:
            raise InvalidInput("The sign window lies outside the ring; lower its lowest bit.")

    @property
    def blocks(self) -> int:
        """Blocks of four bits."""
        return self.bits // 4


def sign_bit_cost(n: int, window: SignWindow) -> Cost:
    """Two rounds: 2*blocks - 2 bits, then 1 bit each way per value. One dealt ring element besides the
    bits."""
    tables = join_tables(window.blocks)
    dealt = 2 * window.blocks + tables.product_dtype.itemsize + window.ring.element_bytes
    return Cost(rounds=2, online_bytes=(tables.opened + 1) * ((n + 7) // 8), dealt_bytes=n * dealt)


@dataclass(frozen=True, repr=False)
class SignMaterial:
    """One evaluator's dealt shares for n values. Used once."""

    masks: npt.NDArray[np.uint16]
    onehot: npt.NDArray[np.uint16]
    products: npt.NDArray[Any]
    sign_mask: RingArray


def deal_sign_bit(tape: DealerTape, label: str, mask: RingArray, window: SignWindow) -> None:
    """Share the blocks of the mask r = l1 + l2, products of mask bits, and the bit b over the sign."""
    r = mask.reshape(-1)
    n, tables = len(r), join_tables(window.blocks)
    bits = tape.bit_masks(f"{label}/bits", n)
    draws = tape.first_draws(f"{label}/dealt")
    onehot = draws.array((window.blocks, n), "<u2")
    products = draws.array((n,), tables.product_dtype)
    fused.add_dealt_blocks(r, bits, low=window.low, tables=tables, onehot=onehot, products=products)
    sign_mask = (bits >> _SIGN_MASK).astype(window.ring.dtype) - draws.ring((n,), window.ring)
    for correction in (onehot, products, sign_mask):
        tape.correct(correction)


def prepare_sign_bit(tape: EvaluatorTape, label: str, n: int, window: SignWindow) -> SignMaterial:
    """Draw or read this evaluator's shares for n values."""
    tables = join_tables(window.blocks)
    bits = tape.bit_masks(f"{label}/bits", n)
    tape.open_dealt(f"{label}/dealt")
    onehot = tape.dealt((window.blocks, n), "<u2")
    products = tape.dealt((n,), tables.product_dtype)
    return SignMaterial(bits, onehot, products, tape.dealt((n,), window.ring.dtype))


@costs(sign_bit_cost)
def sign_bit(
    evaluator: Evaluator, label: str, m: RingArray, material: SignMaterial, window: SignWindow
) -> Program[RingArray]:
    """This evaluator's share of 1 where z = m - r is not negative, else of 0. Shape of `m`. Rounds: 2."""
    flat, tables, lead = m.reshape(-1), join_tables(window.blocks), evaluator.lead
    planes, top = fused.compare_blocks(
        flat, material.onehot, material.masks, low=window.low, blocks=window.blocks
    )
    opened = planes ^ (yield from swap(f"{label}/blocks", evaluator.peer, "bits", planes))
    own = fused.join_blocks(opened, top, material.masks, material.products, tables=tables, lead=lead)
    packed = own ^ (yield from swap(f"{label}/sign", evaluator.peer, "bits", own))
    s = np.unpackbits(packed, count=len(flat), bitorder="little").astype(window.ring.dtype)
    two = window.ring.constant(2)
    share: RingArray = material.sign_mask - two * s * material.sign_mask
    if lead:
        share += s
    return share.reshape(m.shape)
