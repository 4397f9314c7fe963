"""Whatever training gives, a hospital that follows the plan sends what the parties' check accepts."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.fl.hospital_round import within_norm
from libs.fl.round_rules import max_norm_of
from libs.fl.training_plan import TrainingPlan
from libs.fl.update_encoding import encode_update
from libs.mpc.norm_bound import NormBound
from libs.mpc.schemes.cleartext.norm_check import check_norms
from libs.mpc.sketch import sketch

METRIC_LIMIT = 1 << 27


def plan_of(max_norm: float, *, scale_bits: int) -> TrainingPlan:
    values = {"model": "small_cnn", "image_size": 28, "rounds": 2, "learning_rate": 0.1}
    check = {"max_norm": max_norm}
    return TrainingPlan.checked({**values, "scale_bits": scale_bits, "contribution_check": check})


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 2**32),
    length=st.sampled_from([1, 2, 5, 100, 20_000]),
    factor=st.floats(0.01, 1e4),
    max_norm=st.floats(1e-3, 15.9),
    scale_bits=st.sampled_from([8, 16, 20]),
    weight=st.fractions(Fraction(1, 5000), 1, max_denominator=10_000),
    heavy=st.booleans(),
)
def test_an_update_within_its_norm_is_accepted_once_it_is_weighed_and_rounded(
    seed: int, length: int, factor: float, max_norm: float, scale_bits: int, weight: Fraction, heavy: bool
) -> None:
    plan, rng = plan_of(max_norm, scale_bits=scale_bits), np.random.default_rng(seed)
    update = rng.normal(size=length)
    update = update**7 if heavy else update
    update *= factor * max_norm / np.linalg.norm(update)
    kept = within_norm(update.astype(np.float32), plan, round_number=1)
    encoded = encode_update(kept, weight=weight, scale_bits=scale_bits, bound=plan.update_bound)
    largest = max_norm_of(plan, round_number=1)
    bound = NormBound.of(max_norm=largest, weight=weight, length=length)
    exact = float(np.linalg.norm(encoded.view(np.int32).astype(np.float64)))
    assert exact <= float(weight) * largest + length**0.5 / 2 + 1
    assert 2**0.5 * exact <= bound.norm
    values = sketch(encoded, rng.bytes(16))[None]
    assert check_norms(values, [bound], metric_limit=METRIC_LIMIT, resolution=False) == (True,)


def test_an_update_keeps_its_direction_and_a_short_one_everything() -> None:
    plan, update = plan_of(2.0, scale_bits=20), np.array([3.0, -4.0, 0.0], np.float32)
    assert within_norm(update, plan, round_number=1) == pytest.approx(update * 0.4)
    short = update / 10
    assert within_norm(short, plan, round_number=1) is short
