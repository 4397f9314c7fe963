"""How long a contribution may be, in terms of its sketch; and why that catches the long and no others.

x in Z_2^32^d is a hospital's weighted update, read as two's complement; y its sketch (sketch.py), n = K B =
4,096 buckets of K = 4 sketches, by a seed that was drawn after x was fixed. With N the longest honest length,
a contribution passes when |y_j| <= T = 2 N for every j, and sum y_j^2 <= K tau^2 with tau = sqrt(2) N. (Both
to the resolution of a sign window: up to T + 2^12, and up to 1/64 more in all, may pass as well;
`accepted_square`.) Write v_j for the sum of x_i^2 over bucket j.

**The honest pass.** |x| <= N = w M + sqrt(d)/2, M the plan's bound on the update, w its weight, half a unit
of rounding a coordinate. One or two coordinates always pass: the two can at worst meet with one sign in all
four sketches, and (|a| + |b|)^2 <= 2 (a^2 + b^2). More can meet, rarely:
- Buckets: with N = 1, E exp(t y_j) <= exp(sup_k k log(1 + (cosh(t / sqrt(k)) - 1) / B)), because for each
  coordinate log(1 + (cosh(t x) - 1) / B) is at most x^2 times the supremum over 0 < x^2 = 1/k <= 1 of its
  ratio to x^2. At t = 30.57 Chernoff's bound over all 2 n buckets and signs gives P(some |y_j| > 2 N) <
  4.7e-10, for every x. (With T = tau = sqrt(2) N three equal coordinates would be refused once in 2^20.)
- Sum: each coordinate that joins others in a bucket adds at most N^2 to sum y^2 - K |x|^2, since c
  coordinates have y^2 <= c v; so at least five such meetings are needed, in four sketches. For vectors of m
  equal coordinates Chernoff's bound with the exact moments gives P(sum > 2 K N^2) < 1.6e-12 (m = 3 is the
  worst). For others we have no such bound, but the variance (relative 2/n, below) and simulation.

`tests/unit/mpc/test_norm_bound.py` computes both numbers again. For the vectors with such a
bound: below 1e-9 a contribution.

**One coordinate beyond 2 T fails**, except with probability B^-K = 2^-40, even for 2^31, where signs do not
help. Take all other coordinates' places and signs as given. If the rest's table is within T everywhere, x_i
carries its own bucket out: |y| <= T and |y +- x_i| <= T mod 2^32 mean |x_i| <= 2 T. If the rest is out in
exactly one bucket, x_i must fall just there: 1/B. If in more, no place helps. That is 1/B a sketch, and the
sketches are independent.

**Many moderate coordinates fail** too. Let all |x_i| <= 2 T < 2^27 and take the places as given; the signs
make buckets independent. A bucket with v_j >= 4 T^2 is within T (mod 2^32) with probability at most 7/8:
- v_j <= 2^58: P(Y^2 >= v/4) >= 9/16 / 3 by Paley and Zygmund, as E Y^4 <= 3 v^2; it wraps, |Y| > 2^31, with
  at most 2 exp(-2^62 / 2^59) < 0.001 by Hoeffding. So it is within T with at most 1 - 3/16 + 0.001.
- v_j > 2^58: E cos(2 pi Y / 2^32) = prod cos(2 pi x_i / 2^32) <= exp(-(2 pi)^2 v / 2^65) < 0.74, but within T
  the cosine is above 0.99: at most 1.74 / 1.99 < 7/8.

From 208 such buckets of 4,096 on, that is less than 2^-40; below, each still costs 7/8. All other buckets
have v_j < 4 T^2 and hold a Y_j that does not wrap, so that their squares are what they seem.

**And the norm is right where nothing wraps**: E sum Y_j^2 = K |x|^2, with variance at most 2 K |x|^4 / B
(fourth moments: pairs that meet), relative 2/n = 0.022^2. A dense vector of 1.5 N lies 3.8 such deviations
above the threshold, one of 2 N beyond any. A sparse one can only hope to cancel: two coordinates meet under
opposite signs with 1/(2 B) a sketch, so three of the four estimates are intact but for 2^-19.

Everything fits: n (T + 2^12)^2 < 2^63 for M < 2^24 and d <= 2^31, so no sum of squares within T wraps in 64
bits.
"""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from math import isqrt
from typing import Self

from libs.core.errors import InvalidInput
from libs.mpc.kernels.sketch import SKETCHES
from libs.mpc.sketch import SKETCH_LENGTH

MAX_NORM_UNITS = 1 << 24
"""Bounds on norms stay below this many ring units; so do those of plans (libs/fl/training_plan.py)."""

MAX_LENGTH = 1 << 31

RANGE_RESOLUTION = 1 << 12
"""A bucket or a metric may be this far outside its bounds without being noticed: the window's lowest bit."""

NORM_BITS = 20
"""Of the window that compares sums of squares."""

LEAST_NORM = 1 << 14
"""Lower bounds are raised to this: below it the resolution of the range check would weigh."""

_ROUNDING = 4
"""Units for rounding M and w M to integers, and for norms computed in floating point."""


@dataclass(frozen=True)
class NormBound:
    """What one contribution is held to. In ring units."""

    norm: int
    """tau: sqrt(2) times the longest honest length. From 1.5 times that length on, a dense contribution is
    refused."""

    def __post_init__(self) -> None:
        reach = self._reach
        if self.norm < LEAST_NORM or reach >= 1 << 63:
            raise InvalidInput("A bound on norms is between 2^14 and 2^24.6 ring units.")

    @classmethod
    def of(cls, *, max_norm: int, weight: Fraction, length: int) -> Self:
        """For updates of `length` coordinates with a norm of at most `max_norm` units before they are
        weighed.

        tau = floor(sqrt(2) w M) + ceil(sqrt(d)) + 4, at least 2^14.
        """
        if not 0 < max_norm < MAX_NORM_UNITS:
            raise InvalidInput(f"A bound on norms lies between 1 and {MAX_NORM_UNITS - 1} ring units.")
        if not 0 < weight <= 1 or not 0 < length <= MAX_LENGTH:
            raise InvalidInput(
                "A checked contribution has a weight of at most 1, and up to 2^31 coordinates."
            )
        weighed = isqrt(2 * (weight.numerator * max_norm) ** 2 // weight.denominator**2)
        return cls(max(LEAST_NORM, weighed + isqrt(length - 1) + 1 + _ROUNDING))

    @property
    def bucket(self) -> int:
        """T: the largest magnitude of one bucket."""
        return isqrt(2 * self.norm**2)

    @property
    def square(self) -> int:
        """The largest sum of squared buckets: K tau^2."""
        return SKETCHES * self.norm**2

    @property
    def accepted_square(self) -> int:
        """Sums above this are refused for certain; between `square` and this either may happen."""
        return self.square + (1 << self.resolution_bits)

    @property
    def resolution_bits(self) -> int:
        """Lowest bit of the window in which sums are compared: the least that lets the largest one fit."""
        window = (1 << (NORM_BITS - 1)) - 1
        return max(0, (-(-self._reach // window) - 1).bit_length())

    @property
    def _reach(self) -> int:
        """The largest sum of squares that passes the range check."""
        return SKETCH_LENGTH * (self.bucket + RANGE_RESOLUTION) ** 2
