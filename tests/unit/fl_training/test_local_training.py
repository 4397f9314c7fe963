"""One hospital's part of a round."""

import numpy as np
import pytest
import torch
from torch import nn

from libs.core.errors import InvalidInput
from libs.data.imageset import ImageSet
from libs.data.partition import partition_patients
from libs.data.phantom import make_phantoms
from libs.fl.baseline import train_without_sharing
from libs.fl.evaluation import auc, predict_probabilities
from libs.fl.local_training import LocalResult, divide, train_locally, training_seed
from libs.fl.training_plan import Augmentation, Optimizer, TrainingPlan
from libs.fl.vectorise import layout_of, load_state_vector, state_vector
from libs.models.registry import build_model

PLAN = TrainingPlan(
    model="small_cnn",
    image_size=28,
    rounds=3,
    learning_rate=0.05,
    batch_size=16,
    balance_classes=True,
    augmentation=Augmentation(shift=0.05),
)


def _model() -> nn.Module:
    return build_model("small_cnn", channels=1, classes=2, size=28, seed=0)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return make_phantoms(120, size=28, seed=0)


def _train(
    images: ImageSet, *, plan: TrainingPlan = PLAN, seed: int = 1, round_number: int = 1
) -> LocalResult:
    return train_locally(_model(), images, plan, round_number=round_number, seed=seed)


def test_the_update_is_the_difference_of_the_weights(images: ImageSet) -> None:
    model = _model()
    before = state_vector(model)
    result = train_locally(model, images, PLAN, round_number=1, seed=1)
    assert np.array_equal(result.update, state_vector(model) - before)
    assert result.update.dtype == np.float32
    assert np.abs(result.update).max() > 0


def test_the_same_seed_gives_the_same_update_and_another_gives_another(images: ImageSet) -> None:
    torch.manual_seed(7)
    first = _train(images)
    torch.manual_seed(8)
    again = _train(images)
    assert np.array_equal(first.update, again.update)
    assert first.metrics == again.metrics
    assert not np.array_equal(first.update, _train(images, seed=2).update)


def test_later_rounds_take_smaller_steps(images: ImageSet) -> None:
    early, late = (np.abs(_train(images, round_number=r).update).mean() for r in (1, 3))
    assert late < early


def test_training_and_validation_share_no_patient_and_stay_the_same(images: ImageSet) -> None:
    training, validation = divide(images, PLAN)
    assert not set(training.patients) & set(validation.patients)
    assert divide(images, PLAN)[1].names == validation.names


def test_metrics_count_every_image_once(images: ImageSet) -> None:
    training, validation = divide(images, PLAN)
    metrics = _train(images).metrics
    assert metrics.train_samples == len(training)
    assert metrics.validation_samples == len(validation)
    positives = metrics.true_positives + metrics.false_negatives
    assert positives == sum(metrics.positive_scores) == validation.class_counts["PNEUMONIA"]
    assert metrics.true_negatives + metrics.false_positives == sum(metrics.negative_scores)
    assert metrics.train_loss_sum > 0


def test_progress_rises_to_one(images: ImageSet) -> None:
    heard: list[float] = []
    train_locally(_model(), images, PLAN, round_number=1, seed=1, on_progress=heard.append)
    assert heard == sorted(heard)
    assert heard[-1] == 1
    assert len(heard) > 3


@pytest.mark.parametrize("optimizer", Optimizer)
def test_every_optimizer_lowers_the_loss(images: ImageSet, optimizer: Optimizer) -> None:
    rate = {"sgd": 0.05, "adamw": 0.003}[optimizer]
    plan = PLAN.model_copy(update={"optimizer": optimizer, "learning_rate": rate})
    first = _train(images, plan=plan).metrics.train_loss
    later = _train(images, plan=plan.model_copy(update={"local_epochs": 5})).metrics.train_loss
    assert first is not None
    assert later is not None
    assert later < first


def test_a_last_batch_of_one_image_does_not_break_batch_norm(images: ImageSet) -> None:
    training, _ = divide(images, PLAN)
    plan = PLAN.model_copy(update={"batch_size": len(training) - 1, "model": "small_cnn"})
    assert np.isfinite(_train(images, plan=plan).update).all()


def test_a_lopsided_hospital_does_not_pull_the_model_to_its_own_class(images: ImageSet) -> None:
    ill = np.flatnonzero(images.labels == 1)
    lopsided = images.select(np.concatenate([ill, np.flatnonzero(images.labels == 0)[:6]]))

    def mean_answer(plan: TrainingPlan) -> float:
        model = _model()
        train_locally(model, lopsided, plan, round_number=1, seed=1)
        return float(predict_probabilities(model.eval(), images.images[images.labels == 0]).mean())

    plan = PLAN.model_copy(update={"local_epochs": 6})
    assert mean_answer(plan) < mean_answer(plan.model_copy(update={"balance_classes": False})) - 0.1


def test_images_that_do_not_fit_the_plan_are_refused(images: ImageSet) -> None:
    with pytest.raises(InvalidInput, match="images of 32 pixels, not 28"):
        _train(images, plan=PLAN.model_copy(update={"image_size": 32}))
    with pytest.raises(InvalidInput, match="one channel"):
        _train(images, plan=PLAN.model_copy(update={"channels": 3}))
    with pytest.raises(InvalidInput, match="no images of class NORMAL"):
        _train(images.select(np.flatnonzero(images.labels == 1)))


def test_training_that_diverges_is_reported_and_sends_nothing(images: ImageSet) -> None:
    class Exploding(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = nn.Parameter(torch.full((2, 784), 1e30))

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return (x.flatten(1) @ self.weight.T) * 1e30

    with pytest.raises(InvalidInput, match="diverged"):
        train_locally(Exploding(), images, PLAN, round_number=1, seed=1)


def test_a_result_does_not_print_its_values(images: ImageSet) -> None:
    text = repr(_train(images))
    assert "redacted" in text
    assert "loss" not in text


def test_seeds_differ_between_hospitals_and_rounds() -> None:
    seeds = {
        training_seed(PLAN.seed, hospital=h, round_number=r) for h in ("a", "b", "c") for r in range(1, 30)
    }
    assert len(seeds) == 87


def test_federated_averaging_learns_from_made_up_images() -> None:
    plan = PLAN.model_copy(update={"rounds": 6, "learning_rate": 0.03})
    parts = partition_patients(make_phantoms(300, size=28, seed=0), hospitals=3, seed=0)
    test = make_phantoms(200, size=28, seed=1)
    model = _model()
    version = state_vector(model)
    total = sum(len(part) for part in parts)
    for round_number in range(1, plan.rounds + 1):
        mean = np.zeros(version.shape, np.float64)
        for i, part in enumerate(parts):
            load_state_vector(model, version)
            seed = training_seed(plan.seed, hospital=str(i), round_number=round_number)
            result = train_locally(model, part, plan, round_number=round_number, seed=seed)
            mean += result.update.astype(np.float64) * (len(part) / total)
        version = (version + mean).astype(np.float32)
    load_state_vector(model, version)
    assert auc(predict_probabilities(model, test.images), test.labels) > 0.85


def test_the_baseline_is_reproducible_and_reports_progress(images: ImageSet) -> None:
    heard: list[float] = []
    first = train_without_sharing(images, PLAN, owner="a", on_progress=heard.append)
    again = train_without_sharing(images, PLAN, owner="a")
    assert np.array_equal(state_vector(first.module), state_vector(again.module))
    assert heard == pytest.approx([1 / 3, 2 / 3, 1])
    assert first.metrics.validation_samples > 0


def test_class_weights_are_the_plans_and_not_divided_by_their_sum_in_a_batch(images: ImageSet) -> None:
    plan = PLAN.model_copy(update={"balance_classes": False})
    plain = _train(images, plan=plan)
    ones = _train(images, plan=plan.model_copy(update={"class_weights": (1.0, 1.0)}))
    assert np.allclose(plain.update, ones.update, atol=1e-5)
    low = _train(images, plan=plan.model_copy(update={"class_weights": (0.25, 0.25)}))
    trained = layout_of(_model()).trained  # BatchNorm's statistics do not depend on the loss directly
    assert np.linalg.norm(low.update[trained]) < 0.9 * np.linalg.norm(plain.update[trained])
    lopsided = _train(images, plan=plan.model_copy(update={"class_weights": (1.0, 20.0)}))
    assert _calls_pneumonia(lopsided, images) > _calls_pneumonia(plain, images)


def _calls_pneumonia(result: LocalResult, images: ImageSet) -> float:
    module = _model()
    load_state_vector(module, state_vector(module) + result.update)
    return float(predict_probabilities(module, images.images).mean())
