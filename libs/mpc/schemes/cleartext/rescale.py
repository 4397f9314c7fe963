"""Rescaling without security: the floor that the masked one reaches within one unit."""

from __future__ import annotations

from libs.mpc.ring import Ring, RingArray


def rescale(x: RingArray, *, multiplier: int, shift: int, ring: Ring) -> RingArray:
    """floor(x * multiplier / 2^shift) over the signed integers, in Python's exact arithmetic where needed."""
    signed = x.view(ring.signed_dtype).astype(object)
    floored = (signed * multiplier) >> shift
    return (floored % (1 << ring.bits)).astype(ring.dtype)
