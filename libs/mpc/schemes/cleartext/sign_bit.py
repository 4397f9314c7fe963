"""The sign without security."""

from __future__ import annotations

from libs.mpc.ring import Ring, RingArray


def sign_bit(x: RingArray, *, ring: Ring) -> RingArray:
    """1 where x is not negative, else 0; the masked one may say 1 within its window's resolution below
    zero."""
    bits: RingArray = (x.view(ring.signed_dtype) >= 0).astype(ring.dtype)
    return bits
