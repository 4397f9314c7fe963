"""Malicious contributions, and what the check of norms does about them."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest

from libs.core.errors import InvalidInput
from libs.data.imageset import ImageSet
from libs.data.partition import partition_patients, split_by_patient
from libs.data.phantom import make_phantoms
from libs.fl.attacks.contributions import ATTACKS, Past, attack_of, backdoored, flipped_labels, with_trigger
from libs.fl.attacks.contributions_trial import Result, honest_norms, names, run, with_check
from libs.fl.presets import default_plan
from libs.fl.simulate import Contribution, simulate
from libs.fl.training_plan import TrainingPlan
from libs.mpc.ring import RingArray

REFUSED = {"scaled x10", "scaled x100", "sign flip x10", "NaN", "constant", "wrap-around", "random"}
PASS = {"sign flip", "label flip", "replay", "backdoor"}
"""Within the length of an honest update: what the check cannot see, as the README says."""

EITHER = {"backdoor x10"}
TRAIN, TEST = split_by_patient(make_phantoms(120, size=16, seed=0), fraction=0.4, seed=0)


@pytest.fixture(scope="module")
def hospitals() -> Mapping[str, ImageSet]:
    return dict(zip(names(3), partition_patients(TRAIN, hospitals=3, seed=0), strict=True))


@pytest.fixture(scope="module")
def plan(hospitals: Mapping[str, ImageSet]) -> TrainingPlan:
    plan = default_plan(model="small_cnn", image_size=16, images=len(TRAIN), rounds=2)
    return with_check(plan, honest_norms(plan, hospitals))


@pytest.fixture(scope="module")
def clean(plan: TrainingPlan, hospitals: Mapping[str, ImageSet]) -> Result:
    return run(plan, hospitals, TEST, attack=None, checked=True)


def test_no_honest_hospital_is_refused(clean: Result) -> None:
    assert (clean.refused_rounds, clean.honest_refused) == (0, 0)
    assert clean.auc is not None


@pytest.mark.parametrize("name", sorted(ATTACKS))
def test_what_is_too_long_is_refused_in_every_round_and_nothing_else_is(
    name: str, plan: TrainingPlan, hospitals: Mapping[str, ImageSet]
) -> None:
    result = run(plan, hospitals, TEST, attack=attack_of(name), checked=True)
    assert result.honest_refused == 0
    if name not in EITHER:
        assert result.refused_rounds == (plan.rounds if name in REFUSED else 0)
    if name in REFUSED:
        assert result.auc is not None


def test_every_attack_is_claimed_one_way_or_the_other() -> None:
    assert set(ATTACKS) == REFUSED | PASS | EITHER


@pytest.mark.parametrize("name", ["constant", "scaled x100", "wrap-around"])
def test_without_the_check_one_hospital_ruins_the_model(
    name: str, plan: TrainingPlan, hospitals: Mapping[str, ImageSet], clean: Result
) -> None:
    result = run(plan, hospitals, TEST, attack=attack_of(name), checked=False)
    assert result.auc is None or (clean.auc is not None and result.auc < clean.auc - 0.1)


def test_a_replay_is_the_first_contribution_in_every_round(
    plan: TrainingPlan, hospitals: Mapping[str, ImageSet]
) -> None:
    forge, past, sent, honest = ATTACKS["replay"].forge, Past(), list[RingArray](), list[RingArray]()
    assert forge is not None

    def listen(contribution: Contribution) -> RingArray:
        if contribution.hospital != names(3)[-1]:
            return contribution.encoded
        honest.append(contribution.encoded)
        sent.append(forge(contribution, past))
        return sent[-1]

    simulate(plan, hospitals, contribute=listen)
    assert all(np.array_equal(one, honest[0]) for one in sent)
    assert not np.array_equal(honest[1], honest[0])


def test_poison_touches_only_what_it_says() -> None:
    assert np.array_equal(flipped_labels(TRAIN).labels, 1 - TRAIN.labels)
    assert np.array_equal(flipped_labels(TRAIN).images, TRAIN.images)
    marked = backdoored(TRAIN)
    changed = marked.labels != TRAIN.labels
    assert 0 < changed.sum() <= (TRAIN.labels == 1).sum() / 2
    assert (TRAIN.labels[changed] == 1).all()
    assert np.array_equal(marked.images[~changed], TRAIN.images[~changed])
    assert np.array_equal(marked.images[changed], with_trigger(TRAIN.images[changed]))


def test_an_unknown_attack_is_refused() -> None:
    with pytest.raises(InvalidInput, match="scaled x10"):
        attack_of("kindness")
