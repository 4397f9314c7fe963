"""Weighted updates and model weights as integers of the ring, and back.

The parties can only add. So each hospital multiplies its update by its weight *before* it encodes,
the ring sum of the contributions is the weighted mean, and nobody needs a product of secrets.
Weights are exact fractions that sum to one, so the sum never exceeds the largest single update:
one bound, checked here by each hospital, keeps the whole aggregation away from wrap-around.
"""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput
from libs.mpc.fixed_point import PIECE_ELEMENTS, FixedPoint
from libs.mpc.ring import Ring, RingArray

HEADROOM = 2**30
"""Encoded magnitudes stay below this: rescaling over survivors needs |z| < 2^(k-2) for k = 32."""

MAX_SCALE_BITS = 28
_MAX_DENOMINATOR = 2**31

FloatVector = npt.NDArray[np.floating[Any]]


def encode_update(delta: FloatVector, *, weight: Fraction, scale_bits: int, bound: float) -> RingArray:
    """round(weight * delta * 2^scale_bits) in Z_2^32 (uint32), same shape as `delta`.

    Rounding is to the nearest, ties to even, in float64: the same on every machine, and H hospitals
    together are off by at most H/2 units in the last place. Raises InvalidInput when a coordinate is
    not finite or beyond +-`bound`; clipping instead would bias the mean without anybody noticing.
    """
    _check_scale(scale_bits)
    _check_weight(weight)
    if not 0 < bound * 2**scale_bits < HEADROOM:
        raise InvalidInput(
            f"update_bound {bound:g} does not fit the 32-bit ring at scale_bits {scale_bits}: it must be "
            f"above 0 and below {HEADROOM / 2**scale_bits:g}. Lower one of the two in the training plan."
        )
    if _largest(delta) > bound:
        raise InvalidInput(
            f"The update leaves the range +-{bound:g} that the training plan allows (update_bound). Training "
            "probably diverged: lower learning_rate, or raise update_bound in a new plan."
        )
    return FixedPoint(Ring.RING_32, weight * 2**scale_bits).encode(delta)


def encode_weights(weights: FloatVector, *, scale_bits: int) -> RingArray:
    """A model's weights as a model version: round(weights * 2^scale_bits) in Z_2^32 (uint32).

    Raises InvalidInput when a weight is not finite or beyond 2^30 / 2^scale_bits.
    """
    _check_scale(scale_bits)
    limit = HEADROOM / 2**scale_bits
    if _largest(weights) >= limit:
        raise InvalidInput(
            f"A weight of the model is beyond +-{limit:g}, the range at scale_bits {scale_bits}. "
            "Lower scale_bits in the training plan."
        )
    return FixedPoint(Ring.RING_32, Fraction(2**scale_bits)).encode(weights)


def decode_vector(encoded: RingArray, *, scale_bits: int) -> npt.NDArray[np.float64]:
    """The real numbers that a vector of Z_2^32 stands for: its signed value / 2^scale_bits. Exact."""
    _check_scale(scale_bits)
    return FixedPoint(Ring.RING_32, Fraction(2**scale_bits)).decode(encoded)


def weigh_encoded(encoded: RingArray, *, weight: Fraction) -> RingArray:
    """round(weight * v) for the signed value v of each ring element; shape and ring are kept.

    For vectors that are integers already (a folded, encoded model). With v = a*q + r and
    weight = p/q the product is a*p + r*p/q, which needs no integer wider than 64 bits, so the
    result is exact in both rings; halves round up. H hospitals together are off by at most H/2.
    """
    ring = next((ring for ring in Ring if ring.dtype == encoded.dtype), None)
    if ring is None:
        raise InvalidInput(f"Expected a vector of the 32-bit or the 64-bit ring, not {encoded.dtype}.")
    _check_weight(weight)
    p, q = weight.numerator, weight.denominator
    whole, rest = np.divmod(encoded.view(ring.signed_dtype).astype(np.int64), q)
    weighed: RingArray = (whole * p + (rest * p + q // 2) // q).astype(ring.dtype)
    return weighed


def _check_weight(weight: Fraction) -> None:
    if not 0 < weight <= 1 or weight.denominator >= _MAX_DENOMINATOR:
        raise InvalidInput(
            "A hospital's weight must be above 0, at most 1, and a fraction of 31-bit numbers."
        )


def _check_scale(scale_bits: int) -> None:
    if not 0 <= scale_bits <= MAX_SCALE_BITS:
        raise InvalidInput(f"scale_bits must be between 0 and {MAX_SCALE_BITS}, not {scale_bits}.")


def _largest(values: FloatVector) -> float:
    """The largest absolute value; 0 of none. Raises InvalidInput when one is not finite.

    Piece by piece, with no second array of this size: a model has tens of millions.
    """
    flat, largest = values.reshape(-1), 0.0
    for start in range(0, values.size, PIECE_ELEMENTS):
        here = float(np.abs(flat[start : start + PIECE_ELEMENTS]).max())  # NaN if one is
        if not math.isfinite(here):
            raise InvalidInput(
                "Training produced values that are not finite numbers (NaN or infinity), so nothing was "
                "sent. Lower learning_rate in a new training plan."
            )
        largest = max(largest, here)
    return largest
