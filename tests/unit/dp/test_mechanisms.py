"""The discrete Laplace mechanism: the distribution that is accounted for, and nothing that is not exact."""

import math
import random
import secrets
from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from scipy import stats

from libs.core.errors import InvalidInput
from libs.dp.mechanisms import DiscreteLaplaceMechanism, discrete_laplace

FALSE_ALARM = 1e-6
DRAWS = 40_000
CASES = [("1", 1), ("1/2", 1), ("2/3", 3), ("5", 2)]


def _noise(epsilon: str, sensitivity: int, *, seed: int = 1) -> tuple[DiscreteLaplaceMechanism, list[int]]:
    mechanism = DiscreteLaplaceMechanism(Fraction(epsilon), sensitivity)
    rng = random.Random(seed)
    return mechanism, [mechanism.release(0, rng) for _ in range(DRAWS)]


@pytest.mark.parametrize(("epsilon", "sensitivity"), CASES)
def test_noise_has_exactly_the_distribution_that_is_accounted_for(epsilon: str, sensitivity: int) -> None:
    _, noise = _noise(epsilon, sensitivity)
    a = math.exp(-float(Fraction(epsilon)) / sensitivity)
    reach = 0
    while DRAWS * (1 - a) / (1 + a) * a ** (reach + 1) >= 10:
        reach += 1
    inner = {k: (1 - a) / (1 + a) * a ** abs(k) for k in range(-reach, reach + 1)}
    tail = (1 - sum(inner.values())) / 2
    counts = Counter(max(-reach - 1, min(k, reach + 1)) for k in noise)
    expected = np.array([tail, *inner.values(), tail]) * DRAWS
    observed = [counts[k] for k in range(-reach - 1, reach + 2)]
    assert stats.chisquare(observed, expected).pvalue > FALSE_ALARM


@pytest.mark.parametrize(("epsilon", "sensitivity"), CASES)
def test_noise_has_the_variance_that_is_accounted_for(epsilon: str, sensitivity: int) -> None:
    mechanism, noise = _noise(epsilon, sensitivity, seed=2)
    squares = np.square(np.array(noise, np.float64))
    deviations = (squares.mean() - mechanism.variance) / (squares.std() / math.sqrt(DRAWS))
    assert abs(deviations) < stats.norm.isf(FALSE_ALARM / 2)


def test_one_record_more_changes_no_probability_by_more_than_epsilon_allows() -> None:
    mechanism, noise = _noise("1/2", 1, seed=3)
    counts = Counter(noise)
    for k in range(-3, 4):
        bound = math.exp(0.5) * counts[k] + 6 * math.sqrt(counts[k])
        assert counts[k - 1] <= bound
        assert counts[k + 1] <= bound
    assert mechanism.event.epsilon == Fraction(1, 2)


def test_only_whole_numbers_are_drawn() -> None:
    class WholeNumbers:
        def __init__(self) -> None:
            self._rng = random.Random(4)

        def randrange(self, stop: int, /) -> int:
            assert type(stop) is int
            return self._rng.randrange(stop)

    values = [discrete_laplace(Fraction(7, 3), WholeNumbers()) for _ in range(200)]
    assert {type(value) for value in values} == {int}


def test_the_system_generator_is_a_source_and_noise_differs_each_time() -> None:
    mechanism = DiscreteLaplaceMechanism(Fraction(1, 1000))
    releases = {mechanism.release(10**9, secrets.SystemRandom()) for _ in range(20)}
    assert len(releases) > 15
    assert all(abs(release - 10**9) < 40_000 for release in releases)


@pytest.mark.parametrize(
    ("epsilon", "sensitivity"),
    [(Fraction(0), 1), (Fraction(-1), 1), (Fraction(1), 0), (Fraction(1), -2), (Fraction(1, 2**70), 1)],
)
def test_a_mechanism_that_cannot_be_is_refused(epsilon: Fraction, sensitivity: int) -> None:
    with pytest.raises(InvalidInput):
        DiscreteLaplaceMechanism(epsilon, sensitivity)
    with pytest.raises(InvalidInput):
        discrete_laplace(Fraction(0), secrets.SystemRandom())
