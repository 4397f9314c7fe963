"""The noise of private training has the distribution that is accounted for, and nobody can foresee it."""

import math

import numpy as np
import pytest
import torch
from scipy import stats

from libs.core.secret import Secret
from libs.fl.private_randomness import PrivateRandomness
from libs.mpc.prg import SEED_BYTES

FALSE_ALARM = 1e-6


def _seeded(seed: int = 1) -> PrivateRandomness:
    return PrivateRandomness(Secret(seed.to_bytes(SEED_BYTES, "big")))


def _draws(randomness: PrivateRandomness) -> bytes:
    return randomness.gaussian((8,), std=1.0).tobytes()


def test_noise_is_normal_with_the_standard_deviation_asked_for() -> None:
    noise = _seeded().gaussian((200, 1000), std=2.5).ravel()
    assert stats.kstest(noise / 2.5, "norm").pvalue > FALSE_ALARM
    deviations = (noise.var() / 2.5**2 - 1) * math.sqrt(noise.size / 2)
    assert abs(deviations) < stats.norm.isf(FALSE_ALARM / 2)
    assert abs(noise.mean()) / 2.5 * math.sqrt(noise.size) < stats.norm.isf(FALSE_ALARM / 2)


def test_values_of_noise_do_not_depend_on_each_other() -> None:
    noise = _seeded(2).gaussian((2, 100_000), std=1.0)
    for one, other in [(noise[0], noise[1]), (noise[0, :-1], noise[0, 1:])]:
        assert abs(np.corrcoef(one, other)[0, 1]) * math.sqrt(one.size) < stats.norm.isf(FALSE_ALARM / 2)
    assert len(np.unique(noise)) == noise.size


def test_each_record_takes_part_with_its_probability_on_its_own() -> None:
    randomness, times, records, rate = _seeded(3), 400, 500, 0.06
    chosen = np.zeros((times, records), bool)
    for row in chosen:
        row[randomness.choose(records, probability=rate)] = True
    for counts, trials in [(chosen.sum(0), times), (chosen.sum(1), records)]:
        # The spread of sums shows records or steps that move together.
        spread = ((counts - trials * rate) ** 2).sum() / (trials * rate * (1 - rate))
        assert stats.chi2.sf(spread, len(counts)) > FALSE_ALARM
        assert stats.chi2.cdf(spread, len(counts)) > FALSE_ALARM


def test_probability_one_takes_everybody() -> None:
    assert np.array_equal(_seeded().choose(50, probability=1.0), np.arange(50))
    assert _seeded().choose(0, probability=0.5).size == 0


def test_noise_is_fresh_each_time_whatever_torch_and_numpy_were_seeded_with() -> None:
    seen = set()
    for _ in range(3):
        torch.manual_seed(0)
        np.random.seed(0)
        seen.add(_draws(PrivateRandomness.from_system()))
    assert len(seen) == 3


@pytest.mark.parametrize("show", [repr, str])
def test_it_does_not_print_its_seed(show: object) -> None:
    assert show(_seeded()) == "PrivateRandomness(<redacted>)"  # type: ignore[operator]
