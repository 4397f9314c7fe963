"""A linear layer without security."""

from __future__ import annotations

from collections.abc import Callable

from libs.mpc.ring import RingArray


def linear(
    x: RingArray, w: RingArray, bias: RingArray | None, product: Callable[[RingArray, RingArray], RingArray]
) -> RingArray:
    """x*w + bias modulo 2^k; exact, as the masked one is."""
    z = product(x, w)
    if bias is not None:
        z = z + bias
    return z
