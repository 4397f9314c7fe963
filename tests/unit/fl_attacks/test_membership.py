"""Who was trained on: scores, their success, and what privacy allows."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest

from libs.core.errors import InvalidInput
from libs.data.imageset import ImageSet
from libs.data.phantom import make_phantoms
from libs.fl.attacks.membership import SCORES, margins
from libs.fl.attacks.membership_trial import attack_training
from libs.fl.attacks.success import Guesses, measure, most_true_positives
from libs.fl.training_plan import TrainingPlan


def guesses(*, advantage: float, count: int = 1000, targets: int = 3) -> list[Guesses]:
    """Normal scores, members' higher by `advantage` standard deviations."""
    rng = np.random.default_rng(0)
    member = np.arange(count) % 2 == 0
    patient = np.arange(count, dtype=np.int64)
    return [Guesses(rng.normal(size=count) + advantage * member, member, patient) for _ in range(targets)]


def test_success_is_that_of_shifted_normals_within_its_interval() -> None:
    found = measure(guesses(advantage=1.0), seed=0)
    assert found.auc.low < 0.760 < found.auc.high  # the normal distribution function at 1 / sqrt(2)
    assert found.tpr_at[0.01].low < 0.0924 < found.tpr_at[0.01].high  # of 1 - 2.326
    assert found.balanced_accuracy == pytest.approx(0.691, abs=0.03)  # of 1/2


def test_chance_is_told_as_chance() -> None:
    found = measure(guesses(advantage=0.0), seed=0)
    assert found.auc.low < 0.5 < found.auc.high
    assert found.balanced_accuracy == pytest.approx(0.5, abs=0.04)


def test_images_of_one_patient_widen_the_interval() -> None:
    single = guesses(advantage=0.5)
    # Twenty images that are alike say no more than one.
    alike = [
        Guesses(
            np.repeat(one.scores[:50], 20), np.repeat(one.member[:50], 20), np.repeat(one.patient[:50], 20)
        )
        for one in single
    ]
    narrow, wide = (measure(of, seed=0).auc for of in (single, alike))
    assert wide.high - wide.low > 2 * (narrow.high - narrow.low)


def test_the_bound_is_that_of_randomised_response() -> None:
    for epsilon in (0.1, 1.0, 8.0):
        truth = math.exp(epsilon) / (1 + math.exp(epsilon))  # answers yes with this probability when in
        assert most_true_positives(1 - truth, epsilon=epsilon, delta=0.0) == pytest.approx(truth)
    assert most_true_positives(0.01, epsilon=0.0, delta=0.001) == pytest.approx(0.011)
    assert most_true_positives(0.5, epsilon=math.inf, delta=0.0) == 1.0


def test_calibrated_scores_forgive_images_that_are_easy_for_everybody() -> None:
    rng = np.random.default_rng(0)
    member = np.arange(400) % 2 == 0
    hardness = rng.normal(size=400) * 5
    inside = np.arange(6)[:, None] < np.full(400, 3)
    shadows = hardness + rng.normal(size=(6, 400)) + 2.0 * inside
    target = hardness + rng.normal(size=400) + 2.0 * member
    area = {}
    for name, score in SCORES.items():
        one = Guesses(score(target, shadows, inside), member, np.arange(400, dtype=np.int64))
        area[name] = measure([one, one], seed=0, resamples=5).auc.value
    assert min(area["lira_offline"], area["lira_online"]) > 0.8
    assert area["loss"] < 0.7


def test_margins_are_logits_of_the_true_class() -> None:
    logits = np.array([[0.0, 3.0], [0.0, 3.0]])
    assert margins(logits, np.array([1, 0])).tolist() == [3.0, -3.0]
    with pytest.raises(InvalidInput):
        margins(np.zeros((2, 3)), np.array([1, 0]))


@pytest.fixture(scope="module")
def noisy_labels() -> ImageSet:
    """A third of the labels wrong: what is right on them was learnt by heart."""
    images = make_phantoms(100, size=16, seed=0)
    wrong = np.random.default_rng(1).random(len(images)) < 0.33
    return replace(images, labels=np.where(wrong, 1 - images.labels, images.labels))


def heart(**changes: object) -> TrainingPlan:
    values = {
        "model": "small_cnn_private",
        "image_size": 16,
        "rounds": 1,
        "local_epochs": 40,
        "batch_size": 16,
        "learning_rate": 0.05,
        "lr_schedule": "constant",
        "validation_fraction": 0.02,
    }
    return TrainingPlan.checked({**values, **changes})


def test_members_of_an_overfitted_model_are_found_and_noise_hides_them(noisy_labels: ImageSet) -> None:
    test = make_phantoms(60, size=16, seed=9)
    clear = attack_training(noisy_labels, test, heart(), models=6, seed=0).success
    assert clear["loss"].auc.low > 0.6
    assert clear["lira_offline"].auc.low > 0.6
    private = heart(
        privacy={"target_epsilon": 1.0, "delta": 1e-4}, local_epochs=2, batch_size=25, learning_rate=0.3
    )
    hidden = attack_training(noisy_labels, test, private, models=6, seed=0).success
    for success in hidden.values():
        assert success.auc.low < 0.56


def test_an_odd_number_of_models_is_refused(noisy_labels: ImageSet) -> None:
    with pytest.raises(InvalidInput, match="even"):
        attack_training(noisy_labels, noisy_labels, heart(), models=7, seed=0)
