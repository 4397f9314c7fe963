"""The accountant against two that nobody here wrote, and against what can be computed by hand."""

import itertools
import math
import warnings
from fractions import Fraction

import dp_accounting
import pytest
from dp_accounting.dp_event import RandomizedResponseDpEvent
from dp_accounting.pld import PLDAccountant
from dp_accounting.rdp import RdpAccountant
from opacus.accountants.analysis import rdp as opacus_rdp
from opacus.accountants.utils import get_noise_multiplier

from libs.core.errors import InvalidInput
from libs.dp import renyi
from libs.dp.accountant import epsilon_of, noise_multiplier_for
from libs.dp.events import (
    LEAST_NOISE,
    Composed,
    DiscreteLaplace,
    Event,
    NoPrivacy,
    PostProcessing,
    SampledGaussian,
)

DELTA = 1e-5
GRID = list(itertools.product((0.5, 0.8, 1.0, 2.0, 6.0), (0.001, 0.01, 0.1, 0.5, 1.0), (1, 100, 3000)))
THEIRS = [order for order in renyi.ORDERS if order <= 63]


def _epsilon(event: Event) -> float:
    return epsilon_of(event, delta=DELTA)


def _opacus(noise_multiplier: float, sample_rate: float, steps: int) -> float:
    divergences = opacus_rdp.compute_rdp(
        q=sample_rate, noise_multiplier=noise_multiplier, steps=steps, orders=THEIRS
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # an optimal order at the end of its list
        return float(opacus_rdp.get_privacy_spent(orders=THEIRS, rdp=divergences, delta=DELTA)[0])


def _dp_accounting(event: dp_accounting.DpEvent) -> float:
    accountant = RdpAccountant()
    accountant.compose(event)
    return float(accountant.get_epsilon(DELTA))


@pytest.mark.parametrize(("noise_multiplier", "sample_rate", "steps"), GRID)
def test_the_sampled_gaussian_costs_what_others_say(
    noise_multiplier: float, sample_rate: float, steps: int
) -> None:
    got = _epsilon(SampledGaussian(noise_multiplier, sample_rate, steps))
    opacus = _opacus(noise_multiplier, sample_rate, steps)
    # Opacus has no orders above 63, which count where epsilon is tiny.
    assert got == pytest.approx(opacus, rel=1e-6) if opacus > 0.25 else got <= opacus * (1 + 1e-6)
    gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
    event = dp_accounting.SelfComposedDpEvent(
        dp_accounting.PoissonSampledDpEvent(sample_rate, gaussian), steps
    )
    theirs = _dp_accounting(event)
    # Above 8 it leaves out small orders at which its series does not converge, so it says more.
    if theirs > 8:
        assert opacus * (1 - 1e-6) <= got <= theirs
    elif theirs > 0:  # it knows one more bound, by which tiny costs are none
        assert got == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("epsilon", ["1/100", "1/2", "1", "3"])
@pytest.mark.parametrize("releases", [1, 10, 200])
def test_counts_cost_what_others_say_of_randomised_response(epsilon: str, releases: int) -> None:
    event = DiscreteLaplace(Fraction(epsilon))
    lie = 1 / (1 + math.exp(event.epsilon))  # the pair of distributions with the same likelihood ratios
    accountant = RdpAccountant(neighboring_relation=dp_accounting.NeighboringRelation.REPLACE_ONE)
    answer = RandomizedResponseDpEvent(noise_parameter=2 * lie, num_buckets=2)
    accountant.compose(dp_accounting.SelfComposedDpEvent(answer, releases))
    added = releases * float(event.epsilon)
    got = _epsilon(Composed((event,) * releases))
    assert got <= added * (1 + 1e-12)
    theirs = float(accountant.get_epsilon(DELTA))
    if theirs > 0:
        assert got == pytest.approx(min(theirs, added), rel=1e-3)


def test_no_cost_is_below_what_the_exact_accountant_says() -> None:
    for noise_multiplier, sample_rate, steps in [(0.7, 0.01, 200), (1.0, 0.05, 300), (4.0, 1.0, 10)]:
        exact = PLDAccountant()
        gaussian = dp_accounting.GaussianDpEvent(noise_multiplier)
        sampled = dp_accounting.PoissonSampledDpEvent(sample_rate, gaussian)
        exact.compose(dp_accounting.SelfComposedDpEvent(sampled, steps))
        got = _epsilon(SampledGaussian(noise_multiplier, sample_rate, steps))
        assert exact.get_epsilon(DELTA) <= got <= 1.3 * exact.get_epsilon(DELTA)


def test_one_count_costs_exactly_its_epsilon_at_any_delta() -> None:
    for delta in (0, 1e-9, 1e-3):
        assert epsilon_of(DiscreteLaplace(Fraction(1, 2)), delta=delta) <= 0.5
    assert epsilon_of(Composed((DiscreteLaplace(Fraction(1, 10)),) * 10), delta=0) == 1


def test_a_hundred_noisy_counts_cost_less_than_their_sum() -> None:
    assert _epsilon(Composed((DiscreteLaplace(Fraction(1, 10)),) * 100)) < 6


def test_what_was_told_without_noise_has_no_finite_cost() -> None:
    assert _epsilon(NoPrivacy()) == math.inf
    assert _epsilon(Composed((SampledGaussian(5.0, 0.01, 1), Composed((NoPrivacy(),))))) == math.inf


def test_post_processing_costs_nothing() -> None:
    event = SampledGaussian(1.0, 0.01, 100)
    assert _epsilon(PostProcessing()) == _epsilon(Composed(())) == 0
    assert _epsilon(Composed((PostProcessing(), event, PostProcessing()))) == _epsilon(event)


def test_gaussian_noise_promises_nothing_at_delta_zero() -> None:
    assert epsilon_of(SampledGaussian(100.0, 0.01, 1), delta=0) == math.inf


def test_two_halves_cost_what_the_whole_costs() -> None:
    half = SampledGaussian(1.1, 0.02, 250)
    assert _epsilon(Composed((half, half))) == pytest.approx(_epsilon(SampledGaussian(1.1, 0.02, 500)))


def test_a_mixture_costs_at_most_both_parts() -> None:
    gaussian, counts = SampledGaussian(1.0, 0.05, 200), Composed((DiscreteLaplace(Fraction(1, 4)),) * 3)
    together = _epsilon(Composed((gaussian, counts)))
    assert max(_epsilon(gaussian), _epsilon(counts)) < together <= _epsilon(gaussian) + _epsilon(counts)


@pytest.mark.parametrize("delta", [-1e-9, 1.0, 2.0, math.nan])
def test_a_delta_that_is_no_probability_is_refused(delta: float) -> None:
    with pytest.raises(InvalidInput, match="delta"):
        epsilon_of(NoPrivacy(), delta=delta)


@pytest.mark.parametrize("target", [0.1, 1.0, 8.0, 50.0])
@pytest.mark.parametrize(("sample_rate", "steps"), [(0.002, 5000), (0.06, 300), (1.0, 20)])
def test_planned_noise_reaches_its_target_and_never_exceeds_it(
    target: float, sample_rate: float, steps: int
) -> None:
    noise = noise_multiplier_for(target_epsilon=target, delta=1e-5, sample_rate=sample_rate, steps=steps)
    cost = _epsilon(SampledGaussian(noise, sample_rate, steps))
    assert cost <= target
    assert _epsilon(SampledGaussian(noise * 0.9998, sample_rate, steps)) > target


@pytest.mark.filterwarnings("ignore:Optimal order")
def test_planned_noise_is_opacus_plan() -> None:
    ours = noise_multiplier_for(target_epsilon=8.0, delta=1e-4, sample_rate=256 / 4708, steps=300)
    theirs = get_noise_multiplier(
        target_epsilon=8.0,
        target_delta=1e-4,
        sample_rate=256 / 4708,
        steps=300,
        accountant="rdp",
        epsilon_tolerance=1e-4,
    )
    assert ours == pytest.approx(theirs, rel=1e-3)


@pytest.mark.parametrize("target", [0.0, -1.0, math.inf, math.nan])
def test_a_target_that_cannot_be_is_refused(target: float) -> None:
    with pytest.raises(InvalidInput, match="target_epsilon"):
        noise_multiplier_for(target_epsilon=target, delta=1e-5, sample_rate=0.01, steps=10)


@pytest.mark.filterwarnings("ignore:Optimal order")
@pytest.mark.parametrize("noise_multiplier", [0.01, 0.099, 0.1, 0.11])
def test_nearly_no_noise_is_counted_in_no_time_and_never_too_low(noise_multiplier: float) -> None:
    assert _epsilon(SampledGaussian(noise_multiplier, 0.01, 10)) >= _opacus(noise_multiplier, 0.01, 10)


def test_a_target_that_hardly_any_noise_reaches_gets_the_least() -> None:
    assert noise_multiplier_for(target_epsilon=1e6, delta=1e-5, sample_rate=0.01, steps=1) == LEAST_NOISE


def test_a_target_beyond_all_noise_is_refused() -> None:
    with pytest.raises(InvalidInput, match="fewer rounds"):
        noise_multiplier_for(target_epsilon=1e-9, delta=1e-9, sample_rate=1.0, steps=10**9)
