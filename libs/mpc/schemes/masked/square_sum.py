"""sum y_j^2 over the integers, as additive shares modulo 2^64, of values opened in the 32-bit ring. No round.

1. Let |y| < 2^30, m = y + l mod 2^32 and m' = m + 2^30 mod 2^32. So y + 2^30 lies in [0, 2^31), and adding l
   to it wraps exactly when l's top bit is set and that of m' is not: below 2^31 an l cannot make it wrap, and
   from 2^31 on the sum is at least 2^31, and below 2^31 again after a wrap.
2. Over the integers therefore y = mu - lambda_c with mu = m' - 2^30 and c = [m' < 2^31], both public to the
   evaluators, and two secrets of the dealer: lambda_0 = l, and lambda_1 = l - 2^32 [l >= 2^31], which is l
   read as two's complement.
3. y^2 = mu^2 - 2 mu lambda_c + lambda_c^2 is linear in what the dealer shares modulo 2^64: both lambdas and
   their squares. Each evaluator picks by c, adds up, and sends nothing. A value beyond 2^30 gives a wrong
   sum: never use it without a range check (protocol section 10, "squares wrap"). Safe because an evaluator
   sees one uniform share of each dealt value, and the dealer sees nothing at all.
"""

from __future__ import annotations

import numpy as np

from libs.mpc.cost import Cost, costs
from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.masked.tape import DealerTape, EvaluatorTape

_OFFSET = np.uint32(1 << 30)
_DEALT = 4


def square_sum_cost(n: int) -> Cost:
    """Four dealt 64-bit elements per value; no round."""
    return Cost(dealt_bytes=_DEALT * n * Ring.RING_64.element_bytes)


def deal_square_sum(tape: DealerTape, label: str, mask: RingArray) -> None:
    """Share both readings of the mask l = l1 + l2 (any shape, 32 bits), and their squares."""
    secret = np.empty((_DEALT, mask.size), dtype=Ring.RING_64.dtype)
    secret[0] = mask.reshape(-1)
    secret[1] = mask.reshape(-1).view(np.int32).astype(np.int64).view(np.uint64)
    np.multiply(secret[:2], secret[:2], out=secret[2:])
    secret -= tape.first_draws(f"{label}/dealt").ring(secret.shape, Ring.RING_64)
    tape.correct(secret)


def prepare_square_sum(tape: EvaluatorTape, label: str, shape: tuple[int, ...]) -> RingArray:
    """This evaluator's shares of (lambda_0, lambda_1, lambda_0^2, lambda_1^2). Shape (4, *shape)."""
    tape.open_dealt(f"{label}/dealt")
    return tape.dealt((_DEALT, *shape), Ring.RING_64.dtype)


@costs(square_sum_cost)
def square_sum(m: RingArray, dealt: RingArray, *, lead: bool) -> RingArray:
    """This evaluator's share of the sum of y^2 over the last axis, y = m - l and |y| < 2^30. Shape
    m.shape[:-1]."""
    shifted = m + _OFFSET
    low = shifted < np.uint32(1 << 31)
    public = shifted.astype(np.uint64) - np.uint64(_OFFSET)
    value, square = np.where(low, dealt[1], dealt[0]), np.where(low, dealt[3], dealt[2])
    square -= np.uint64(2) * public * value
    if lead:
        square += public * public
    total: RingArray = square.sum(axis=-1, dtype=Ring.RING_64.dtype)
    return total
