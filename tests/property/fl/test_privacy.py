"""What a plan costs, before anybody trains."""

from __future__ import annotations

import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.core.errors import FailedPrecondition, InvalidInput
from libs.dp.events import NoPrivacy, PostProcessing, SampledGaussian, canonical_json, from_json
from libs.fl.privacy import noise_multiplier, planned_epsilon, planned_event, require_within_target
from libs.fl.privacy_parameters import PrivacyParameters
from libs.fl.training_plan import TrainingPlan


def _plan(**changes: object) -> TrainingPlan:
    values = {
        "model": "small_cnn_private",
        "image_size": 28,
        "rounds": 4,
        "learning_rate": 0.1,
        "batch_size": 64,
    }
    privacy = PrivacyParameters(target_epsilon=8.0, delta=1e-4)
    return TrainingPlan.checked(values | {"batch_size": 64, "privacy": privacy} | changes)


@settings(max_examples=8, deadline=None)
@given(
    records=st.integers(1, 20_000),
    batch_size=st.integers(2, 512),
    rounds=st.integers(1, 60),
    epochs=st.integers(1, 4),
    target=st.floats(0.2, 50),
)
def test_a_planned_study_never_costs_more_than_its_target(
    records: int, batch_size: int, rounds: int, epochs: int, target: float
) -> None:
    privacy = PrivacyParameters(target_epsilon=target, delta=1e-5)
    plan = _plan(privacy=privacy, rounds=rounds, batch_size=batch_size, local_epochs=epochs)
    cost = planned_epsilon(plan, records=records)
    assert 0.9 * target < cost <= target
    require_within_target(plan, records=records, runs=rounds)
    with pytest.raises(FailedPrecondition, match="target_epsilon"):
        require_within_target(plan, records=records, runs=2 * rounds)


def test_the_event_says_how_often_with_what_noise() -> None:
    plan = _plan(
        privacy=PrivacyParameters(target_epsilon=8.0, delta=1e-4, noise_multiplier=1.5), local_epochs=2
    )
    event = planned_event(plan, records=1000)
    assert event == SampledGaussian(noise_multiplier=1.5, sample_rate=0.064, steps=4 * 2 * 16)
    assert from_json(canonical_json(event)) == event
    assert planned_event(plan, records=1000, runs=1) == SampledGaussian(1.5, 0.064, 32)
    assert planned_event(plan, records=1000, runs=0) == PostProcessing()


def test_rounds_one_by_one_cost_what_all_of_them_cost() -> None:
    plan = _plan()
    costs = [planned_epsilon(plan, records=1000, runs=runs) for runs in range(5)]
    assert costs[0] == 0
    assert costs == sorted(set(costs))
    assert costs[-1] == planned_epsilon(plan, records=1000)


def test_without_privacy_nothing_is_promised() -> None:
    plan = _plan(privacy=None)
    assert planned_event(plan, records=1000) == NoPrivacy()
    assert planned_epsilon(plan, records=1000) == math.inf
    assert planned_event(plan, records=1000, runs=0) == PostProcessing()
    with pytest.raises(InvalidInput, match="privacy parameters"):
        noise_multiplier(plan, records=1000)


def test_a_hospital_smaller_than_a_batch_takes_everybody_each_time() -> None:
    event = planned_event(_plan(), records=10)
    assert isinstance(event, SampledGaussian)
    assert (event.sample_rate, event.steps) == (1.0, 4)


@pytest.mark.parametrize("records", [0, -1])
def test_a_hospital_without_images_is_refused(records: int) -> None:
    with pytest.raises(InvalidInput, match="at least one image"):
        planned_event(_plan(), records=records)
    with pytest.raises(InvalidInput, match="from 0 up"):
        planned_event(_plan(), records=1, runs=-1)
