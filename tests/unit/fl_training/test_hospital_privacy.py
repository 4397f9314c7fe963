"""Privacy of whole hospitals: the parties' noise, what hides in it, and what it costs."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from libs.core.errors import FailedPrecondition, InvalidInput
from libs.data.phantom import make_phantoms
from libs.dp.events import DiscreteGaussian
from libs.fl.hospital_round import encode_contribution, train_round
from libs.fl.metrics import METRICS_LENGTH, RoundMetrics
from libs.fl.privacy import planned_epsilon, planned_event, require_within_target
from libs.fl.round_rules import largest_part_of, max_norm_of, noise_std_of, within_noise
from libs.fl.simulate import simulate
from libs.fl.sum_noise import noise_part, part_of
from libs.fl.training_plan import TrainingPlan
from libs.fl.versions import Reader, first_version
from libs.mpc.ring import Ring

FALSE_ALARM = 1e-6
VALUES = {
    "model": "small_cnn_private",
    "image_size": 16,
    "rounds": 3,
    "learning_rate": 0.5,
    "privacy": {"target_epsilon": 8.0, "delta": 1e-3, "unit": "hospital", "largest_weight": 0.4},
    "contribution_check": {"max_norm": 0.5},
}
PLAN = TrainingPlan.checked(VALUES)
WEIGHT = Fraction(1, 3)


def _with(**privacy: object) -> TrainingPlan:
    return TrainingPlan.checked(VALUES | {"privacy": VALUES["privacy"] | privacy})  # type: ignore[operator]


def _length(encoded: np.ndarray) -> float:
    return float(np.linalg.norm(encoded.view(np.int32).astype(np.float64)))


# ------------------------------------------------------------ noise


def test_any_two_parties_add_the_variance_that_is_accounted_for() -> None:
    std, count = noise_std_of(PLAN), 100_000
    parts = [
        noise_part(count, std=std, ring=Ring.RING_32).view(np.int32).astype(np.float64) for _ in range(3)
    ]
    for left_out in range(3):
        two = sum(part for i, part in enumerate(parts) if i != left_out) / std
        chi_square = float((two**2).sum())
        assert stats.chi2.cdf(chi_square, count) > FALSE_ALARM, "less noise than is accounted for"
        assert stats.chi2.sf(chi_square, count) > FALSE_ALARM
    three = sum(parts) / std
    assert float((three**2).mean()) == pytest.approx(1.5, rel=0.03)


def test_a_part_has_half_the_variance_and_never_less() -> None:
    for std in (64, 65, 1000, 642_119, 2**26):
        part = part_of(std)
        assert 2 * part * part >= std * std > 2 * (part - 1) * (part - 1)


def test_the_noise_follows_from_target_rounds_norm_and_weight() -> None:
    event = planned_event(PLAN, records=7)
    assert isinstance(event, DiscreteGaussian)
    assert event.releases == 3
    assert largest_part_of(PLAN) == 0.4 * 2**19
    assert 0 <= noise_std_of(PLAN) - event.noise_multiplier * largest_part_of(PLAN) < 1
    assert 7.9 < planned_epsilon(PLAN, records=7) <= 8.0
    assert planned_event(PLAN, records=10**6) == event, "a hospital's size is no secret of this noise"
    require_within_target(PLAN, records=7, runs=3)
    with pytest.raises(FailedPrecondition, match="epsilon of 8"):
        require_within_target(PLAN, records=7, runs=4)
    assert noise_std_of(TrainingPlan.checked(VALUES | {"privacy": None})) == 0


@pytest.mark.parametrize(
    "changes", [{"contribution_check": None}, {"contribution_check": {"max_norm": 1, "first_max_norm": 2}}]
)
def test_a_plan_whose_parts_are_not_bounded_alike_is_refused(changes: dict[str, object]) -> None:
    with pytest.raises(InvalidInput, match="one max_norm"):
        TrainingPlan.checked(VALUES | changes)


def test_noise_too_small_for_whole_numbers_or_too_large_for_the_ring_is_refused() -> None:
    with pytest.raises(InvalidInput, match="units in the last place"):
        noise_std_of(_with(noise_multiplier=0.01, largest_weight=1e-3))
    with pytest.raises(InvalidInput, match="units in the last place"):
        noise_std_of(_with(noise_multiplier=10_000))


# ------------------------------------------------------------ what a hospital sends


@pytest.mark.parametrize("norm", [0.0, 0.1, 0.4999, 0.5, 30.0])
@pytest.mark.parametrize("weight", [Fraction(1, 10), WEIGHT, Fraction(2, 5)])
def test_no_contribution_is_longer_than_its_noise_was_made_for(norm: float, weight: Fraction) -> None:
    update = np.random.default_rng(1).normal(size=5000)
    update *= norm / np.linalg.norm(update)
    bounded = within_noise(update, PLAN, weight=weight)
    sent = np.rint(float(weight) * bounded * 2**PLAN.scale_bits)
    assert np.linalg.norm(sent) <= largest_part_of(PLAN)
    assert np.linalg.norm(sent) <= 1.0001 * float(weight) * max_norm_of(PLAN, round_number=1) + 40
    if norm <= 0.1:
        assert np.array_equal(bounded, update)


def test_rounding_that_goes_up_everywhere_still_stays_within() -> None:
    weight, count = Fraction(2, 5), 10**6  # so that each of a million coordinates is 209.7 units
    update = np.full(count, 0.5 / np.sqrt(count))
    sent = np.rint(float(weight) * within_noise(update, PLAN, weight=weight) * 2**PLAN.scale_bits)
    assert np.linalg.norm(sent) <= largest_part_of(PLAN)


def test_a_hospital_that_counts_for_too_much_sends_nothing() -> None:
    with pytest.raises(FailedPrecondition, match="largest_weight"):
        within_noise(np.ones(10), PLAN, weight=Fraction(41, 100))


def test_a_norm_below_what_rounding_changes_is_refused() -> None:
    plan = TrainingPlan.checked(VALUES | {"contribution_check": {"max_norm": 1e-3}})
    with pytest.raises(InvalidInput, match="rounding"):
        within_noise(np.ones(10**6), plan, weight=WEIGHT)


def test_a_round_tells_a_bounded_update_and_no_metrics() -> None:
    reader = Reader(PLAN)
    reader.read(first_version(PLAN), round_number=0)
    images = make_phantoms(60, size=16, seed=0)
    trained = train_round(PLAN, images, hospital="a", round_number=1, opened=reader.opened)
    assert trained.metrics == RoundMetrics()
    sent = encode_contribution(PLAN, trained, weight=WEIGHT)
    assert 0 < _length(sent[:-METRICS_LENGTH]) <= largest_part_of(PLAN)
    assert not sent[-METRICS_LENGTH:].any()


def test_a_simulated_study_carries_the_noise() -> None:
    hospitals = {name: make_phantoms(30, size=16, seed=seed) for seed, name in enumerate("abc")}
    one, other = (simulate(PLAN, hospitals).versions[1] for _ in range(2))
    difference = (one - other).view(np.int32).astype(np.float64)
    # Two runs differ by two noises of three parts each.
    expected = noise_std_of(PLAN) * np.sqrt(2 * 1.5)
    assert difference.std() == pytest.approx(expected, rel=0.3)
