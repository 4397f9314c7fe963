"""The numbers in the argument for the norm check, computed again."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest

from libs.core.errors import InvalidInput
from libs.fl import metrics, training_plan
from libs.mpc import norm_bound
from libs.mpc.kernels.sketch import BUCKETS, SKETCHES
from libs.mpc.norm_bound import MAX_LENGTH, MAX_NORM_UNITS, RANGE_RESOLUTION, NormBound
from libs.mpc.norm_check import METRIC_LIMIT
from libs.mpc.sketch import SKETCH_LENGTH
from services.smpc_party import domain

LARGEST = NormBound.of(max_norm=MAX_NORM_UNITS - 1, weight=Fraction(1), length=MAX_LENGTH)
SMALLEST = NormBound.of(max_norm=1, weight=Fraction(1, 1000), length=1)
TYPICAL = NormBound.of(max_norm=1 << 23, weight=Fraction(1, 3), length=11_000_000)


def test_an_honest_bucket_is_beyond_its_limit_less_than_once_in_a_billion() -> None:
    """Chernoff's bound of `norm_bound` at t = 30.57, on a fine grid over k."""
    t, k = 30.57, np.concatenate([np.arange(1, 400, 0.01), np.geomspace(400, 1e9, 20_000)])
    angle = t / np.sqrt(k)
    worst = (k * np.log1p((np.cosh(angle) - 1) / BUCKETS)).max()
    assert 2 * SKETCH_LENGTH * math.exp(worst - 2 * t) < 4.7e-10


def _log_moment(m: int, t: float) -> float:
    """log E exp(t (sum y^2 - 1)) of one sketch of m coordinates of 1/sqrt(m): places are multinomial, so this
    is m! times the m-th coefficient of a power series to the power of BUCKETS."""
    series = []
    for c in range(m + 1):
        y = c - 2 * np.arange(c + 1.0)
        signs = np.array([math.comb(c, i) / 2**c for i in range(c + 1)])
        mean = (signs * np.exp(t * (y**2 - c) / m)).sum()
        series.append(mean / math.factorial(c) * (m / BUCKETS) ** c)
    power = [1.0]
    for n in range(1, m + 1):
        terms = ((BUCKETS * i - (n - i)) * series[i] * power[n - i] for i in range(1, n + 1))
        power.append(sum(terms) / n)
    return math.log(power[m]) + math.lgamma(m + 1) - m * math.log(m)


def test_an_honest_flat_vector_is_too_long_less_than_once_in_a_hundred_billion() -> None:
    steps = np.linspace(2, 12, 81)
    bounds = {
        m: min(math.exp(SKETCHES * (_log_moment(m, t) - t)) for t in steps) for m in (3, 4, 5, 6, 8, 16, 40)
    }
    assert max(bounds.values()) < 1.6e-12
    assert max(bounds, key=lambda m: bounds[m]) == 3


def test_other_places_state_the_same_limits() -> None:
    assert MAX_NORM_UNITS == training_plan.LARGEST_NORM_UNITS
    assert METRIC_LIMIT == 2**32 // metrics.MAX_HOSPITALS
    assert MAX_LENGTH == domain.MAX_LENGTH


@pytest.mark.parametrize("bound", [LARGEST, SMALLEST, TYPICAL])
def test_every_sum_of_squares_within_range_fits_its_window(bound: NormBound) -> None:
    reach = SKETCH_LENGTH * (bound.bucket + RANGE_RESOLUTION) ** 2
    assert reach < 1 << 63
    assert max(reach, bound.square) < ((1 << (norm_bound.NORM_BITS - 1)) - 1) << bound.resolution_bits
    assert bound.resolution_bits <= 64 - norm_bound.NORM_BITS
    assert bound.accepted_square <= bound.square * (1 + 1 / 64)


@pytest.mark.parametrize("length", [1, 2, 10, 100_000, 11_000_000, MAX_LENGTH])
@pytest.mark.parametrize("weight", [Fraction(1), Fraction(1, 3), Fraction(7, 5232)])
def test_the_longest_honest_contribution_is_within_half_of_both_thresholds(
    length: int, weight: Fraction
) -> None:
    """N with rounding of every coordinate, and of M: sqrt(2) N fits tau, 2 N fits a bucket."""
    for max_norm in (1, 77, 1 << 20, MAX_NORM_UNITS - 1):
        bound = NormBound.of(max_norm=max_norm, weight=weight, length=length)
        honest = float(weight) * (max_norm + 1) + math.sqrt(length) / 2
        assert math.sqrt(2) * honest <= bound.norm
        assert 2 * honest <= bound.bucket
        if bound.norm > 1 << 14:
            assert bound.norm <= math.sqrt(2) * float(weight) * max_norm + math.sqrt(length) + 6


@pytest.mark.parametrize(
    ("max_norm", "weight", "length"),
    [
        (0, Fraction(1), 5),
        (MAX_NORM_UNITS, Fraction(1), 5),
        (5, Fraction(0), 5),
        (5, Fraction(2), 5),
        (5, Fraction(1), 0),
    ],
)
def test_a_bound_that_cannot_be_checked_is_refused(max_norm: int, weight: Fraction, length: int) -> None:
    with pytest.raises(InvalidInput):
        NormBound.of(max_norm=max_norm, weight=weight, length=length)


def test_a_norm_whose_squares_could_wrap_is_refused() -> None:
    for norm in (1 << 13, 1 << 26):
        with pytest.raises(InvalidInput):
            NormBound(norm)
