"""ReLU with rescaling, from an opening that already exists: two rounds of bits (protocol sections 5, 6).

Only the bits [low, low + 4*blocks) of m and of the mask r matter for the sign when |z| is below half the
window. The dealer shares each 4-bit block of r as a one-hot vector of bits; an evaluator reads its share of
"less" and "equal" of a block with a parity under a public mask. Round 1 opens those bits under dealt
masks; the comparison is then a public polynomial in the dealer's products of masks. Round 2 opens the sign
under one more bit b; relu = (s + (1-2s) b) z is linear in what the dealer shared: b, T, B, bT, bB.
Everything sent is uniform: bits under fresh masks that the receiver does not know.
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
from libs.mpc.schemes.masked.rescale import check_ratio
from libs.mpc.schemes.masked.roles import Evaluator
from libs.mpc.schemes.masked.tape import DealerTape, EvaluatorTape


@dataclass(frozen=True)
class ReluShape:
    """Public parameters. The ratio is multiplier / 2^shift; (1, 0) leaves the scale alone.

    The sign is right for 2^low <= |z| < (2^(window_bits-1) - 1) 2^low, and may be either for |z| < 2^low:
    dropping the bits below `low` of m and r leaves floor(z / 2^low) or one more.
    """

    multiplier: int
    shift: int
    window_low: int
    window_bits: int
    ring: Ring

    def __post_init__(self) -> None:
        check_ratio(multiplier=self.multiplier, shift=self.shift)
        if self.window_bits not in {8, 12, 16, 20}:
            raise InvalidInput("A sign window has 8, 12, 16 or 20 bits.")
        if not 0 <= self.window_low <= self.ring.bits - self.window_bits:
            raise InvalidInput("The sign window lies outside the ring; lower window_low.")

    @property
    def blocks(self) -> int:
        """Blocks of four bits."""
        return self.window_bits // 4

    @property
    def plain(self) -> bool:
        """No rescaling: two dealt ring elements instead of five."""
        return (self.multiplier, self.shift) == (1, 0)

    @property
    def dealt_elements(self) -> int:
        """Dealt ring elements per value."""
        return 2 if self.plain else 5


def relu_cost(n: int, shape: ReluShape) -> Cost:
    """Two rounds: 2*blocks - 2 bits, then 1 bit each way per value."""
    tables = join_tables(shape.blocks)
    packed = (n + 7) // 8
    dealt = 2 * shape.blocks + tables.product_dtype.itemsize + shape.dealt_elements * shape.ring.element_bytes
    return Cost(rounds=2, online_bytes=(tables.opened + 1) * packed, dealt_bytes=n * dealt)


@dataclass(frozen=True, repr=False)
class ReluMaterial:
    """One evaluator's dealt shares for n values. Used once."""

    masks: npt.NDArray[np.uint16]
    onehot: npt.NDArray[np.uint16]
    products: npt.NDArray[Any]
    dealt: RingArray
    mask: RingArray | None
    """Its half of r, for the plain ReLU only."""


def deal_relu(tape: DealerTape, label: str, mask: RingArray, shape: ReluShape) -> None:
    """Share everything about the mask r = l1 + l2 that both rounds need."""
    r = mask.reshape(-1)
    n, tables = len(r), join_tables(shape.blocks)
    bits = tape.bit_masks(f"{label}/bits", n)
    draws = tape.first_draws(f"{label}/dealt")
    onehot = draws.array((shape.blocks, n), "<u2")
    products = draws.array((n,), tables.product_dtype)
    fused.add_dealt_blocks(r, bits, low=shape.window_low, tables=tables, onehot=onehot, products=products)
    tape.correct(onehot)
    tape.correct(products)
    values = draws.ring((shape.dealt_elements, n), shape.ring)
    fused.subtract_from_dealt(
        r, bits, values, multiplier=shape.multiplier, shift=shape.shift, plain=shape.plain
    )
    tape.correct(values)


def prepare_relu(tape: EvaluatorTape, label: str, mask: RingArray, shape: ReluShape) -> ReluMaterial:
    """Draw or read this evaluator's shares. `mask` is its half of the opened value's mask."""
    n, tables = mask.size, join_tables(shape.blocks)
    bits = tape.bit_masks(f"{label}/bits", n)
    tape.open_dealt(f"{label}/dealt")
    onehot = tape.dealt((shape.blocks, n), "<u2")
    products = tape.dealt((n,), tables.product_dtype)
    dealt = tape.dealt((shape.dealt_elements, n), shape.ring.dtype)
    return ReluMaterial(bits, onehot, products, dealt, mask.reshape(-1) if shape.plain else None)


@costs(relu_cost)
def relu(
    evaluator: Evaluator, label: str, m: RingArray, material: ReluMaterial, shape: ReluShape
) -> Program[RingArray]:
    """This evaluator's share of relu(z) * multiplier / 2^shift, z = m - r. Same shape as `m`. Rounds: 2."""
    flat, tables = m.reshape(-1), join_tables(shape.blocks)
    planes, top = fused.compare_blocks(
        flat, material.onehot, material.masks, low=shape.window_low, blocks=shape.blocks
    )
    opened = planes ^ (yield from swap(f"{label}/blocks", evaluator.peer, "bits", planes))
    own = fused.join_blocks(
        opened, top, material.masks, material.products, tables=tables, lead=evaluator.lead
    )
    positive = own ^ (yield from swap(f"{label}/sign", evaluator.peer, "bits", own))
    if material.mask is not None:
        share = fused.select_plain(flat, positive, material.mask, material.dealt, lead=evaluator.lead)
    else:
        share = fused.select(
            flat,
            positive,
            material.dealt,
            multiplier=shape.multiplier,
            shift=shape.shift,
            lead=evaluator.lead,
        )
    return share.reshape(m.shape)
