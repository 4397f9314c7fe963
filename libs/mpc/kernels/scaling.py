"""Multiplication of ring elements by a public fraction, as compiled loops. `reference.py` is the oracle."""

from __future__ import annotations

import numpy as np
from numba import njit

from libs.mpc.ring import Ring, RingArray

_compiled = njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")


@_compiled
def _scale_down(values, offset, multiplier, shift, minus, out):  # type: ignore[no-untyped-def]
    """floor((values + offset) * multiplier / 2^shift) - minus, modulo 2^k."""
    kind = values.dtype.type
    for v in range(values.size):
        x = np.uint64(kind(values[v] + offset))
        high = ((x >> np.uint64(32)) * multiplier) << (np.uint64(32) - shift)
        out[v] = kind(high + (((x & np.uint64(0xFFFFFFFF)) * multiplier) >> shift)) - minus


@_compiled
def _wrap(values, top, wrap, out):  # type: ignore[no-untyped-def]
    for v in range(values.size):
        out[v] = (values[v] >> top) * wrap


@_compiled
def _rescale(m, dealt, offset, top, multiplier, shift, minus, lead, out):  # type: ignore[no-untyped-def]
    kind = m.dtype.type
    for v in range(m.size):
        shifted = kind(m[v] + offset)
        x = np.uint64(shifted)
        high = ((x >> np.uint64(32)) * multiplier) << (np.uint64(32) - shift)
        public = kind(high + (((x & np.uint64(0xFFFFFFFF)) * multiplier) >> shift)) - minus
        wraps = kind(1) - (shifted >> top)
        out[v] = lead * public - dealt[0, v] + wraps * dealt[1, v]


def offsets(ring: Ring, *, multiplier: int, shift: int) -> tuple[np.generic, np.generic, np.generic]:
    """2^(k-2), the same scaled, and k-1, as ring elements."""
    quarter = 1 << (ring.bits - 2)
    return (
        ring.constant(quarter),
        ring.constant((quarter * multiplier) >> shift),
        ring.constant(ring.bits - 1),
    )


def rescale_public(m: RingArray, *, multiplier: int, shift: int) -> RingArray:
    """floor(m' q) - floor(2^(k-2) q), the first of `reference.rescale_public`."""
    ring, out = Ring.of(m), np.empty_like(m)
    offset, minus, _ = offsets(ring, multiplier=multiplier, shift=shift)
    _scale_down(m, offset, np.uint64(multiplier), np.uint64(shift), minus, out)
    return out


def rescale_secret(r: RingArray, *, multiplier: int, shift: int) -> tuple[RingArray, RingArray]:
    """See `reference.rescale_secret`."""
    ring, floor_r, wrap = Ring.of(r), np.empty_like(r), np.empty_like(r)
    zero = ring.constant(0)
    _scale_down(r, zero, np.uint64(multiplier), np.uint64(shift), zero, floor_r)
    _wrap(r, ring.constant(ring.bits - 1), ring.constant(multiplier << (ring.bits - shift)), wrap)
    return floor_r, wrap


def rescale(m: RingArray, dealt: RingArray, *, multiplier: int, shift: int, lead: bool) -> RingArray:
    """This evaluator's share of z * multiplier / 2^shift, z = m - r. `dealt` (2, n)."""
    ring, out = Ring.of(m), np.empty_like(m)
    offset, minus, top = offsets(ring, multiplier=multiplier, shift=shift)
    scale = (np.uint64(multiplier), np.uint64(shift))
    _rescale(m, dealt, offset, top, *scale, minus, ring.constant(int(lead)), out)
    return out


def warm_up() -> None:
    """Compile for both rings."""
    for ring in Ring:
        values = ring.zeros((9,))
        rescale_public(values, multiplier=1, shift=1)
        rescale(
            values, np.stack(rescale_secret(values, multiplier=1, shift=1)), multiplier=1, shift=1, lead=True
        )
