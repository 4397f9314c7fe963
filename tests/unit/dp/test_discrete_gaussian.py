"""Discrete Gaussian noise, a vector at a time: the distribution that is accounted for."""

from __future__ import annotations

import math
from fractions import Fraction
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from libs.core.errors import InvalidInput
from libs.dp import discrete_gaussian as module
from libs.dp.accountant import Accountant, epsilon_of, sum_noise_multiplier_for
from libs.dp.discrete_gaussian import discrete_gaussian
from libs.dp.events import Composed, DiscreteGaussian, SampledGaussian
from libs.mpc.prg import Prg

FALSE_ALARM = 1e-6
DRAWS = 200_000


def _draw(std: int, *, seed: int = 1, count: int = DRAWS) -> npt.NDArray[np.int64]:
    return discrete_gaussian(count, std=std, stream=Prg(bytes([seed]) * 16))


def _check_distribution(values: npt.NDArray[np.int64], std: int) -> None:
    reach = 4 * std
    support = np.arange(-40 * std, 40 * std + 1)
    masses = np.exp(-(support.astype(np.float64) ** 2) / (2 * std**2))
    masses /= masses.sum()
    inner = masses[np.abs(support) <= reach]
    tail = (1 - inner.sum()) / 2
    counts = np.bincount(np.clip(values, -reach - 1, reach + 1) + reach + 1, minlength=2 * reach + 3)
    expected = np.array([tail, *inner, tail]) * len(values)
    assert stats.chisquare(counts, expected * counts.sum() / expected.sum()).pvalue > FALSE_ALARM


@pytest.mark.parametrize("std", [1, 2, 7])
def test_values_have_exactly_the_distribution_that_is_accounted_for(std: int) -> None:
    _check_distribution(_draw(std), std)


def test_where_floats_cannot_decide_exact_arithmetic_decides_alike(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_BAND", 2.0**63)  # as if most comparisons were too close
    _check_distribution(_draw(2, count=4_000), 2)


@pytest.mark.parametrize("std", [64, 10_001, 1 << 20, 1 << 30])
def test_values_have_the_variance_that_is_accounted_for(std: int) -> None:
    scaled = _draw(std).astype(np.float64) / std
    chi_square = float((scaled**2).sum())
    assert stats.chi2.sf(chi_square, DRAWS) > FALSE_ALARM
    assert stats.chi2.cdf(chi_square, DRAWS) > FALSE_ALARM
    assert abs(scaled.mean()) * math.sqrt(DRAWS) < stats.norm.isf(FALSE_ALARM / 2)
    # A lattice of 1/std is too fine for the test to see.
    if std > 10_000:
        assert stats.kstest(scaled, "norm").pvalue > FALSE_ALARM


def test_neighbouring_values_are_independent() -> None:
    scaled = _draw(1000).astype(np.float64) / 1000
    correlation = float((scaled[1:] * scaled[:-1]).mean()) * math.sqrt(DRAWS - 1)
    assert abs(correlation) < stats.norm.isf(FALSE_ALARM / 2)


def test_only_whole_numbers_are_drawn() -> None:
    class Whole:
        def __init__(self) -> None:
            self._prg = Prg(bytes(16))

        def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike, /) -> npt.NDArray[Any]:
            assert np.issubdtype(dtype, np.unsignedinteger)
            return self._prg.array(shape, dtype)

    assert discrete_gaussian(100, std=5, stream=Whole()).dtype == np.int64


@pytest.mark.parametrize("std", [0, -1, 2**31])
def test_noise_that_cannot_be_is_refused(std: int) -> None:
    with pytest.raises(InvalidInput, match="standard deviation"):
        _draw(std)


def test_two_parts_add_up_to_one_discrete_gaussian_as_far_as_floats_go() -> None:
    """Kairouz, Liu and Steinke (2021), theorem 1, bound the difference by 10 exp(-pi^2 sigma^2) for two."""
    std = 3
    support = np.arange(-100, 101).astype(np.float64)
    part = np.exp(-(support**2) / (2 * std**2))
    both = np.convolve(part / part.sum(), part / part.sum())
    wide = np.arange(-200, 201).astype(np.float64)
    exact = np.exp(-(wide**2) / (4 * std**2))
    middle = np.abs(wide) < 15
    assert np.allclose(both[middle], (exact / exact.sum())[middle], rtol=1e-12)


# ------------------------------------------------------------ what it costs


def test_a_sum_costs_what_the_gaussian_costs_by_divergences() -> None:
    sums = DiscreteGaussian(noise_multiplier=3.0, releases=20)
    same = SampledGaussian(noise_multiplier=3.0, sample_rate=1.0, steps=20)
    assert epsilon_of(sums, delta=1e-5) == epsilon_of(same, delta=1e-5)
    assert epsilon_of(sums, delta=1e-5, accountant=Accountant.PRV) == epsilon_of(sums, delta=1e-5)
    half = DiscreteGaussian(noise_multiplier=3.0, releases=10)
    assert epsilon_of(Composed((half, half)), delta=1e-5) == pytest.approx(epsilon_of(sums, delta=1e-5))


def test_a_sum_costs_no_less_than_concentrated_privacy_says_it_must() -> None:
    """The exact cost of one value: hockey-stick divergence of the discrete Gaussian and its neighbour."""
    sigma, epsilon = 10, 0.3
    k = np.arange(-400, 401).astype(np.float64)
    p, q = np.exp(-(k**2) / (2 * sigma**2)), np.exp(-((k - 10) ** 2) / (2 * sigma**2))
    delta = float(np.maximum(p - math.exp(epsilon) * q, 0).sum() / p.sum())
    assert epsilon_of(DiscreteGaussian(1.0, 1), delta=delta) >= epsilon


@pytest.mark.parametrize("target", [0.5, 8.0])
def test_planned_noise_on_sums_reaches_its_target_and_never_exceeds_it(target: float) -> None:
    noise = sum_noise_multiplier_for(target_epsilon=target, delta=1e-5, releases=16)
    assert epsilon_of(DiscreteGaussian(noise, 16), delta=1e-5) <= target
    assert epsilon_of(DiscreteGaussian(noise * 0.9998, 16), delta=1e-5) > target


@pytest.mark.parametrize("values", [(0.001, 1), (1.0, 0), (math.nan, 1), (1.0, 10**10)])
def test_a_release_that_cannot_be_is_refused(values: tuple[float, int]) -> None:
    with pytest.raises(InvalidInput):
        DiscreteGaussian(*values)


def test_a_fraction_decides_a_close_call() -> None:
    border = int(math.exp(-0.5) * 2**64)
    assert module._is_below(border - 2**20, Fraction(1, 2), Prg(bytes(16)))
    assert not module._is_below(border + 2**20, Fraction(1, 2), Prg(bytes(16)))
