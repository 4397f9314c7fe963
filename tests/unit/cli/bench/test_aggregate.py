"""From timed rounds to the report, without any process."""

from __future__ import annotations

import numpy as np
import pytest

from libs.cli.bench.aggregate import figures
from libs.cli.bench.aggregation import PARTY_STEPS, Load, Measured, Round, plain_average
from libs.cli.bench.hospitals import MAX_NORM, NORM, SCALE_BITS, update_of
from services.smpc_party.domain import MAX_NORM_UNITS

LOAD = Load(hospitals=2, parameters=100, processes=2, checks=(False,), repeat=3, warm_up=0)


def timed(round_s: float, *, peak: int) -> Round:
    return Round(
        round_s=round_s,
        hospital_s=[round_s / 2, round_s / 4],
        encode_s=[0.1, 0.1],
        party_s=round_s / 8,
        steps_s=dict.fromkeys(PARTY_STEPS, 0.01),
        party_cpu_s=[1.0, 2.0, 3.0],
        hospitals_cpu_s=4.0,
        bytes_up=[410, 420],
        bytes_between_parties=960,
        peak_memory_bytes=[peak, None, 2 * peak],
    )


def test_times_are_medians_and_memory_is_the_most_of_any_round() -> None:
    rounds = [timed(1.0, peak=5), timed(8.0, peak=7), timed(2.0, peak=6)]
    report = figures(LOAD, Measured(rounds, plain_s=[0.5, 0.25, 0.75], max_abs_error=1e-6))
    assert (report["round_s"], report["plain_s"], report["added_s"]) == (2.0, 0.5, 1.5)
    assert report["bytes_up_per_hospital"] == 420
    assert report["bytes_up_per_parameter"] == 4.2
    assert report["peak_memory_bytes_by_party"] == {0: 7, 1: None, 2: 14}


def test_the_checks_norm_is_one_that_parties_take_and_no_update_breaks_it() -> None:
    lengths = [float(np.linalg.norm(update_of(number, 20_000))) for number in range(3)]
    assert lengths == pytest.approx([NORM] * 3, rel=0.05)
    assert max(lengths) * 2**SCALE_BITS < MAX_NORM < MAX_NORM_UNITS


def test_the_plain_average_is_the_mean() -> None:
    updates = [update_of(number, 1000) for number in range(3)]
    np.testing.assert_allclose(plain_average(updates), np.mean(updates, axis=0), atol=1e-7)
