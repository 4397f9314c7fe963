"""Whole studies in one process."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

import numpy as np
import pytest

from libs.core.errors import InvalidInput
from libs.data.imageset import ImageSet
from libs.data.partition import partition_patients
from libs.data.phantom import make_phantoms
from libs.fl.metrics import METRICS_LENGTH, encode_metrics
from libs.fl.simulate import Contribution, simulate
from libs.fl.strategies.registry import STRATEGIES
from libs.fl.strategy_parameters import Strategy
from libs.fl.update_encoding import decode_vector, encode_update
from libs.fl.versions import first_version
from libs.mpc.ring import RingArray
from tests.fakes.strategy_plans import plan_with


@pytest.fixture(scope="module")
def hospitals() -> Mapping[str, ImageSet]:
    parts = partition_patients(make_phantoms(90, size=28, seed=0), hospitals=3, seed=0)
    return dict(zip(["alpha", "beta", "gamma"], parts, strict=True))


@pytest.mark.parametrize("name", sorted(STRATEGIES))
def test_versions_are_sums_of_what_hospitals_encode(
    name: Strategy, hospitals: Mapping[str, ImageSet]
) -> None:
    plan, sent = plan_with(name, rounds=2), dict[int, list[RingArray]]()

    def listen(contribution: Contribution) -> RingArray:
        sent.setdefault(contribution.round_number, []).append(contribution.encoded)
        return contribution.encoded

    study = simulate(plan, hospitals, contribute=listen)
    assert np.array_equal(study.versions[0], first_version(plan))
    for number in (1, 2):
        total = np.sum(np.stack(sent[number]), axis=0, dtype=np.uint32)
        assert np.array_equal(study.versions[number], study.versions[number - 1] + total[:-METRICS_LENGTH])
        assert np.array_equal(encode_metrics(study.metrics[number - 1]), total[-METRICS_LENGTH:])


def test_contributions_are_weighed_by_images_and_add_up_to_the_mean_update(
    hospitals: Mapping[str, ImageSet],
) -> None:
    plan, heard = plan_with(Strategy.FEDAVG, rounds=1), list[Contribution]()

    def listen(contribution: Contribution) -> RingArray:
        heard.append(contribution)
        return contribution.encoded

    study = simulate(plan, hospitals, contribute=listen)
    total = sum(len(images) for images in hospitals.values())
    assert [c.weight for c in heard] == [Fraction(len(i), total) for i in hospitals.values()]
    mean = sum(float(c.weight) * c.trained.update.astype(np.float64) for c in heard)
    change = decode_vector(study.versions[1] - study.versions[0], scale_bits=plan.scale_bits)
    assert np.abs(change - mean).max() <= 2 / 2**plan.scale_bits


def test_a_contribution_that_is_too_long_is_left_out_and_only_with_the_check(
    hospitals: Mapping[str, ImageSet],
) -> None:
    plan = plan_with(
        Strategy.FEDAVG, rounds=1, contribution_check={"max_norm": 10.0}, quorum=2, model="small_cnn"
    )

    def attack(contribution: Contribution) -> RingArray:
        if contribution.hospital != "beta":
            return contribution.encoded
        scaled = encode_update(
            contribution.trained.update * np.float32(50),
            weight=contribution.weight,
            scale_bits=20,
            bound=1000,
        )
        return np.concatenate([scaled, contribution.encoded[-METRICS_LENGTH:]])

    honest = simulate(plan, hospitals)
    checked = simulate(plan, hospitals, contribute=attack)
    unchecked = simulate(plan, hospitals, contribute=attack, check=False)
    assert honest.refused == (frozenset(),)
    assert checked.refused == (frozenset({"beta"}),)
    assert unchecked.refused == (frozenset(),)
    far = [_distance(study.versions[1], honest.versions[1]) for study in (checked, unchecked)]
    assert far[0] < 10 < far[1]


def test_survivors_are_brought_to_their_weighted_mean(hospitals: Mapping[str, ImageSet]) -> None:
    plan = plan_with(Strategy.FEDAVG, rounds=1, contribution_check={"max_norm": 10.0})
    heard = dict[str, Contribution]()

    def attack(contribution: Contribution) -> RingArray:
        heard[contribution.hospital] = contribution
        if contribution.hospital != "beta":
            return contribution.encoded
        return np.full_like(contribution.encoded, 2**29)

    study = simulate(plan, hospitals, contribute=attack)
    left = [heard["alpha"], heard["gamma"]]
    whole = float(sum(c.weight for c in left))
    mean = sum(float(c.weight) / whole * c.trained.update.astype(np.float64) for c in left)
    change = decode_vector(study.versions[1] - study.versions[0], scale_bits=plan.scale_bits)
    assert np.abs(change - mean).max() <= 3 / 2**plan.scale_bits


def test_an_honest_update_beyond_the_norm_is_scaled_down_and_counts(
    hospitals: Mapping[str, ImageSet],
) -> None:
    plan = plan_with(Strategy.FEDAVG, rounds=1, contribution_check={"max_norm": 0.5})
    lengths = list[float]()

    def listen(contribution: Contribution) -> RingArray:
        lengths.append(float(np.linalg.norm(contribution.trained.update)))
        return contribution.encoded

    assert simulate(plan, hospitals, contribute=listen).refused == (frozenset(),)
    assert all(math.isclose(length, 0.5, rel_tol=1e-5) for length in lengths)


def test_too_few_hospitals_and_too_few_that_pass_are_refused(hospitals: Mapping[str, ImageSet]) -> None:
    with pytest.raises(InvalidInput, match="needs 4 hospitals"):
        simulate(plan_with(Strategy.FEDAVG, quorum=4), hospitals)
    plan = plan_with(Strategy.FEDAVG, quorum=3, rounds=1, contribution_check={"max_norm": 10.0})
    with pytest.raises(InvalidInput, match="Only 0 contributions"):
        simulate(plan, hospitals, contribute=lambda c: np.full_like(c.encoded, 2**29))


def test_a_round_trains_the_sampled_fraction_but_never_fewer_than_the_quorum(
    hospitals: Mapping[str, ImageSet],
) -> None:
    study = simulate(plan_with(Strategy.FEDAVG, client_fraction=0.1, rounds=3), hospitals)
    chosen = [simulated.participants for simulated in study.rounds]
    assert {len(names) for names in chosen} == {2}
    assert len(set(chosen)) > 1


def _distance(one: RingArray, other: RingArray) -> float:
    return float(np.linalg.norm(decode_vector(one - other, scale_bits=20)))
