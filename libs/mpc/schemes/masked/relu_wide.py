"""ReLU with rescaling in one round: for links where a round costs more than the bytes that save it.

The window is a sign bit above two blocks (8 and 7 bits for 16). With M, R the window's bits of m and r:
    N = M_sign ^ R_sign ^ [M_upper < R_upper],  P = [M_upper = R_upper],  G = [M_lower < R_lower],
and z = m - r is negative when F = N ^ P G is 1.
1. The dealer shares both blocks of R as one-hot vectors of bits; an evaluator reads its shares of "less" and
   "equal" with a parity under a public mask, as in `relu.py`.
2. One round opens o = (N ^ R_sign, P, G) ^ masks. R_sign joins the dealer's view of the first mask, which is
   called a below; p and g are the other two. So N = o_N ^ a, P = o_P ^ p, G = o_G ^ g.
3. Over the integers [z >= 0] = 1 - F = (1 - N) - (1 - 2N) P G. A bit x = o ^ y is o + (1-2o) y, and
   1 - 2N = (1 - 2 o_N)(1 - 2a), so for each opened pattern 1 - F = c_0 + c_1 a + c_2 (1-2a) p + c_3 (1-2a) g
   + c_4 (1-2a) p g with public c: a basis e of four functions besides 1, where monomials would need seven.
4. relu = (1 - F)(pub - T + n B) as in `relu.py`, hence linear in what the dealer shared in the ring: e, T,
   e T, B, e B. No second opening.
Why it is safe: the dealer is sent nothing. Of the dealt values an evaluator sees one additive (or XOR) share,
uniform by itself. The other evaluator's message is its share of three bits under its own three mask bits,
which only it and the dealer know, drawn once and used for nothing else that is sent: it is uniform and
independent of everything the receiver holds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.mpc.cost import Cost, costs
from libs.mpc.kernels import wide
from libs.mpc.kernels.wide_reference import BASIS, OPENED, WideWindow, word_dtype, words_of
from libs.mpc.program import Program, swap
from libs.mpc.ring import RingArray
from libs.mpc.schemes.masked.relu import ReluShape
from libs.mpc.schemes.masked.roles import Evaluator
from libs.mpc.schemes.masked.tape import DealerTape, EvaluatorTape


def _window(shape: ReluShape) -> WideWindow:
    return WideWindow(low=shape.window_low, bits=shape.window_bits)


def _dealt_rows(shape: ReluShape) -> int:
    return 2 * BASIS if shape.plain else 3 * BASIS + 2


def relu_wide_cost(n: int, shape: ReluShape) -> Cost:
    """One round of 3 bits each way per value; 2^b bits are dealt for a block of b, and 8 or 14 elements."""
    window = _window(shape)
    hot = sum(words_of(b) * word_dtype(b).itemsize for b in (window.upper_bits, window.lower_bits))
    dealt = hot + _dealt_rows(shape) * shape.ring.element_bytes
    return Cost(rounds=1, online_bytes=OPENED * ((n + 7) // 8), dealt_bytes=n * dealt)


@dataclass(frozen=True, repr=False)
class WideReluMaterial:
    """One evaluator's dealt shares for n values. Used once."""

    masks: npt.NDArray[np.uint8]
    upper: npt.NDArray[Any]
    lower: npt.NDArray[Any]
    dealt: RingArray
    mask: RingArray | None
    """Its half of r, for the plain ReLU only."""


def deal_relu_wide(tape: DealerTape, label: str, mask: RingArray, shape: ReluShape) -> None:
    """Share everything about the mask r = l1 + l2 that the round needs."""
    r, window = mask.reshape(-1), _window(shape)
    bits = tape.bit_masks(f"{label}/bits", len(r), "<u1")
    draws = tape.first_draws(f"{label}/dealt")
    upper, lower = (
        draws.array((words_of(b), len(r)), word_dtype(b)) for b in (window.upper_bits, window.lower_bits)
    )
    values = draws.ring((_dealt_rows(shape), len(r)), shape.ring)
    wide.add_dealt_blocks(r, upper, lower, window=window)
    wide.subtract_from_dealt(
        r,
        bits,
        values,
        window=window,
        multiplier=shape.multiplier,
        shift=shape.shift,
        plain=shape.plain,
    )
    for correction in (upper, lower, values):
        tape.correct(correction)


def prepare_relu_wide(tape: EvaluatorTape, label: str, mask: RingArray, shape: ReluShape) -> WideReluMaterial:
    """Draw or read this evaluator's shares. `mask` is its half of the opened value's mask."""
    n, window = mask.size, _window(shape)
    bits = tape.bit_masks(f"{label}/bits", n, "<u1")
    tape.open_dealt(f"{label}/dealt")
    upper, lower = (
        tape.dealt((words_of(b), n), word_dtype(b)) for b in (window.upper_bits, window.lower_bits)
    )
    dealt = tape.dealt((_dealt_rows(shape), n), shape.ring.dtype)
    return WideReluMaterial(bits, upper, lower, dealt, mask.reshape(-1) if shape.plain else None)


@costs(relu_wide_cost)
def relu_wide(
    evaluator: Evaluator, label: str, m: RingArray, material: WideReluMaterial, shape: ReluShape
) -> Program[RingArray]:
    """This evaluator's share of relu(z) * multiplier / 2^shift, z = m - r. Same shape as `m`. Rounds: 1."""
    flat, lead = m.reshape(-1), evaluator.lead
    planes = wide.compare(
        flat, material.upper, material.lower, material.masks, window=_window(shape), lead=lead
    )
    opened = planes ^ (yield from swap(f"{label}/bits", evaluator.peer, "bits", planes))
    if material.mask is not None:
        share = wide.select_plain(flat, opened, material.mask, material.dealt, lead=lead)
    else:
        share = wide.select(
            flat, opened, material.dealt, multiplier=shape.multiplier, shift=shape.shift, lead=lead
        )
    return share.reshape(m.shape)
