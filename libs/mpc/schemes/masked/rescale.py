"""Multiplication of a masked value by a public positive fraction, rounding down: truncation and more.

The integers, not only the ring elements, obey z' = m' - r + 2^k n msb(r), where z' = z + 2^(k-2) is in
[0, 2^(k-1)), m' = z' + r mod 2^k and n = 1 - msb(m'): a wrap happens exactly when r's top bit is set and
m's is not. Multiplying by q and rounding each term gives
    z q = floor(m' q) - floor(r q) + n msb(r) 2^k q - 2^(k-2) q,  within one unit and unbiased.
The dealer shares floor(r q) and 2^k q msb(r). q = multiplier / 2^shift with shift <= 32 <= k makes
2^k q an integer, so no rounding enters there. A power of two is protocol section 4; any other
fraction is what average pooling and the weights of a round's survivors need (DECISIONS.md).
"""

from __future__ import annotations

import numpy as np

from libs.core.errors import InvalidInput
from libs.mpc.cost import Cost, costs
from libs.mpc.kernels import scaling
from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.masked.tape import DealerTape, EvaluatorTape


def rescale_cost(n: int, ring: Ring) -> Cost:
    """Two dealt ring elements per value; no round."""
    return Cost(dealt_bytes=2 * n * ring.element_bytes)


def check_ratio(*, multiplier: int, shift: int) -> None:
    """Raise `InvalidInput` unless 0 < multiplier < 2^32 and 0 <= shift <= 32."""
    if not (0 < multiplier < 1 << 32 and 0 <= shift <= 32):
        raise InvalidInput("A rescaling needs a multiplier below 2^32 and a shift of at most 32 bits.")


def deal_rescale(
    tape: DealerTape, label: str, mask: RingArray, *, multiplier: int, shift: int, ring: Ring
) -> None:
    """Share floor(r q) and 2^k q msb(r)."""
    secret = np.stack(scaling.rescale_secret(mask.reshape(-1), multiplier=multiplier, shift=shift))
    secret -= tape.first_draws(f"{label}/dealt").ring(secret.shape, ring)
    tape.correct(secret)


def prepare_rescale(tape: EvaluatorTape, label: str, n: int, ring: Ring) -> RingArray:
    """Shares of (floor(r q), 2^k q msb(r)). Shape (2, n)."""
    tape.open_dealt(f"{label}/dealt")
    return tape.dealt((2, n), ring.dtype)


@costs(rescale_cost)
def rescale(m: RingArray, dealt: RingArray, *, multiplier: int, shift: int, lead: bool) -> RingArray:
    """This evaluator's share of z * multiplier / 2^shift for |z| < 2^(k-2). Same shape as `m`."""
    share = scaling.rescale(m.reshape(-1), dealt, multiplier=multiplier, shift=shift, lead=lead)
    return share.reshape(m.shape)
