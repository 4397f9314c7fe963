"""Noise for counts: the discrete Laplace mechanism, sampled exactly from uniform whole numbers.

Canonne, Kamath and Steinke (2020), algorithms 1 and 2. Only whole numbers are drawn, added and compared, so
no rounding of floats gives an observer a hold on the true count (Mironov, 2012).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Protocol

from libs.core.errors import InvalidInput
from libs.dp.events import DiscreteLaplace

_MAX_TERM = 2**64


class Randomness(Protocol):
    """Uniform whole numbers. `secrets.SystemRandom()` wherever data are real."""

    def randrange(self, stop: int, /) -> int:
        """Uniform in 0, ..., stop - 1."""
        ...


@dataclass(frozen=True)
class DiscreteLaplaceMechanism:
    """Adds noise k with probability proportional to exp(-epsilon |k| / sensitivity).

    `sensitivity` is by how much one record can change the count; for several counts released together, by how
    much it can change them in sum (1 for a histogram of records). How long sampling takes depends on the
    noise, so it does not belong where a caller can measure it closely.
    """

    epsilon: Fraction
    sensitivity: int = 1

    def __post_init__(self) -> None:
        DiscreteLaplace(self.epsilon)  # checks the range
        if not 1 <= self.sensitivity < _MAX_TERM:
            raise InvalidInput("The sensitivity of a count is a whole number from 1 up.")
        if max(self.epsilon.numerator, self.epsilon.denominator) >= _MAX_TERM:
            raise InvalidInput("epsilon is a fraction of 64-bit numbers. Write it with fewer digits.")

    @property
    def event(self) -> DiscreteLaplace:
        """What one release is to an accountant. Several counts with one joint sensitivity are one release."""
        return DiscreteLaplace(self.epsilon)

    @property
    def variance(self) -> float:
        """Of the noise: 2a / (1 - a)^2 with a = exp(-epsilon / sensitivity)."""
        rate = float(self.epsilon) / self.sensitivity
        return 2 * math.exp(-rate) / math.expm1(-rate) ** 2

    def release(self, count: int, rng: Randomness) -> int:
        """`count` with fresh noise; may be negative. Rounding it afterwards costs nothing."""
        return count + discrete_laplace(self.sensitivity / self.epsilon, rng)


def discrete_laplace(scale: Fraction, rng: Randomness) -> int:
    """k with probability proportional to exp(-|k| / scale) (algorithm 2)."""
    if scale <= 0:
        raise InvalidInput("The scale of noise lies above 0.")
    t, s = scale.numerator, scale.denominator
    while True:
        rest = rng.randrange(t)
        if not _bernoulli_exp(Fraction(rest, t), rng):
            continue
        wholes = 0
        while _bernoulli_exp(Fraction(1), rng):
            wholes += 1
        magnitude = (rest + t * wholes) // s
        negative = rng.randrange(2) == 1
        if not (negative and magnitude == 0):  # else zero would come up twice as often
            return -magnitude if negative else magnitude


def _bernoulli_exp(gamma: Fraction, rng: Randomness) -> bool:
    """True with probability exp(-gamma), for 0 <= gamma <= 1 (algorithm 1)."""
    k = 1
    while rng.randrange(gamma.denominator * k) < gamma.numerator:
        k += 1
    return k % 2 == 1
