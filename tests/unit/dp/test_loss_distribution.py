"""The accountant by privacy loss against dp_accounting's, Opacus's, and a formula."""

from __future__ import annotations

import itertools
import math
import warnings
from fractions import Fraction

import dp_accounting
import pytest
from dp_accounting.pld import PLDAccountant
from dp_accounting.pld.privacy_loss_distribution import from_randomized_response
from opacus.accountants import PRVAccountant
from scipy.stats import norm

from libs.dp import loss_distribution
from libs.dp.accountant import Accountant, epsilon_of, noise_multiplier_for
from libs.dp.events import Composed, DiscreteLaplace, Event, NoPrivacy, SampledGaussian

DELTA = 1e-5
GRID = list(itertools.product((0.6, 1.0, 3.0), (0.01, 0.16, 1.0), (1, 112, 2000)))


def _prv(event: Event, delta: float = DELTA) -> float:
    return epsilon_of(event, delta=delta, accountant=Accountant.PRV)


def _theirs(event: dp_accounting.DpEvent) -> float:
    accountant = PLDAccountant()
    accountant.compose(event)
    return float(accountant.get_epsilon(DELTA))


def _sampled(noise_multiplier: float, sample_rate: float, steps: int) -> dp_accounting.DpEvent:
    gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
    return dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(sample_rate, gaussian), steps
    )


@pytest.mark.parametrize(("noise_multiplier", "sample_rate", "steps"), GRID)
def test_training_costs_what_dp_accounting_says_and_never_more_than_by_divergences(
    noise_multiplier: float, sample_rate: float, steps: int
) -> None:
    event = SampledGaussian(noise_multiplier, sample_rate, steps)
    got, rdp = _prv(event), epsilon_of(event, delta=DELTA)
    assert got <= rdp
    if rdp < 50:  # beyond, theirs takes seconds
        assert got == pytest.approx(_theirs(_sampled(noise_multiplier, sample_rate, steps)), rel=1e-3)


def _opacus(noise_multiplier: float, sample_rate: float, steps: int, *, bound: int) -> float:
    accountant = PRVAccountant()
    accountant.history = [(noise_multiplier, sample_rate, steps)]
    prv = accountant._get_dprv(eps_error=0.01, delta_error=DELTA / 1000)
    return float(prv.compute_epsilon(DELTA, DELTA / 1000, 0.01)[bound])


@pytest.mark.parametrize(("noise_multiplier", "sample_rate", "steps"), [(1.2, 0.16, 112), (0.8, 0.01, 300)])
def test_training_costs_what_opacus_says_between_its_two_bounds(
    noise_multiplier: float, sample_rate: float, steps: int
) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        low, high = (_opacus(noise_multiplier, sample_rate, steps, bound=bound) for bound in (0, 2))
    assert low <= _prv(SampledGaussian(noise_multiplier, sample_rate, steps)) <= high


@pytest.mark.parametrize(("noise_multiplier", "steps"), [(1.0, 1), (5.0, 40), (30.0, 1000)])
def test_everybody_each_time_costs_what_the_formula_of_the_gaussian_says_and_never_less(
    noise_multiplier: float, steps: int
) -> None:
    """Balle and Wang (2018): many Gaussians are one with the root of their number less noise."""
    mu = math.sqrt(steps) / noise_multiplier
    got = _prv(SampledGaussian(noise_multiplier, 1.0, steps))

    def delta_at(epsilon: float) -> float:
        return float(norm.sf(epsilon / mu - mu / 2) - math.exp(epsilon) * norm.sf(epsilon / mu + mu / 2))

    assert delta_at(got) <= DELTA
    assert delta_at(got * 0.998) > DELTA


def test_counts_and_training_together_cost_what_dp_accounting_says() -> None:
    count = DiscreteLaplace(Fraction(1, 4))
    lie = 1 / (1 + math.exp(0.25))
    answers = from_randomized_response(2 * lie, 2).self_compose(60)  # the accountant forgets how often
    alone = answers.get_epsilon_for_delta(DELTA)
    assert _prv(Composed((count,) * 60)) == pytest.approx(alone, rel=2e-3)
    training = SampledGaussian(1.0, 0.05, 200)
    both = _prv(Composed((training, *(count,) * 3)))
    assert _prv(training) < both <= epsilon_of(Composed((training, *(count,) * 3)), delta=DELTA)


def test_two_halves_cost_what_the_whole_costs_also_by_the_loss() -> None:
    half = SampledGaussian(1.1, 0.02, 250)
    assert _prv(Composed((half, half))) == pytest.approx(_prv(SampledGaussian(1.1, 0.02, 500)), rel=1e-6)


def test_nothing_is_promised_of_what_was_told_without_noise_by_the_loss_either() -> None:
    assert _prv(NoPrivacy()) == math.inf
    assert _prv(SampledGaussian(1.0, 0.1, 1), delta=0.0) == math.inf
    assert _prv(Composed(())) == 0


@pytest.mark.parametrize(
    ("event", "delta"),
    [
        (SampledGaussian(0.02, 0.5, 10), 1e-5),
        (SampledGaussian(1.0, 0.5, 10**9), 1e-5),
        (SampledGaussian(1.0, 0.01, 10), 1e-16),
    ],
)
def test_where_the_loss_fits_no_grid_divergences_decide(event: SampledGaussian, delta: float) -> None:
    assert loss_distribution.epsilon_at([(event, event.steps)], delta=delta) == math.inf
    assert _prv(event, delta=delta) == epsilon_of(event, delta=delta)


def test_the_direction_that_costs_more_is_counted() -> None:
    event = SampledGaussian(0.6, 0.16, 5)
    ways = [loss_distribution._one_way([(event, 5)], delta=DELTA, added=added) for added in (True, False)]
    assert ways[0] != pytest.approx(ways[1], rel=0.05)
    assert loss_distribution.epsilon_at([(event, 5)], delta=DELTA) == max(ways)


def test_noise_planned_by_the_loss_is_less_and_keeps_to_the_target() -> None:
    values = {"target_epsilon": 8.0, "delta": 1e-4, "sample_rate": 256 / 1744, "steps": 112}
    less = noise_multiplier_for(**values, accountant=Accountant.PRV)
    assert less < 0.97 * noise_multiplier_for(**values)
    assert 7.98 < _prv(SampledGaussian(less, 256 / 1744, 112), delta=1e-4) <= 8.0
