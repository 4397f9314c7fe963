"""DP-SGD: every gradient clipped, noise on every sum, nothing told that no noise covers."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
import torch
from scipy import stats
from torch import nn
from torch.nn import functional

from libs.cli.bench.private_training import run_privately
from libs.core.errors import FailedPrecondition, InvalidInput
from libs.core.secret import Secret
from libs.data.dataset import load_train_and_test
from libs.data.imageset import ImageSet
from libs.data.phantom import make_phantoms
from libs.data.transforms import to_model_input
from libs.dp.events import SampledGaussian
from libs.fl.augmentation import augment
from libs.fl.baseline import train_without_sharing
from libs.fl.calibration import calibration_images
from libs.fl.evaluation import auc, predict_probabilities
from libs.fl.local_training import LocalResult, divide, train_locally
from libs.fl.metrics import RoundMetrics
from libs.fl.privacy import noise_multiplier, planned_epsilon, planned_event, views_of
from libs.fl.privacy_parameters import PrivacyParameters
from libs.fl.private_randomness import PrivateRandomness
from libs.fl.private_training import MOST_AT_ONCE, train_privately
from libs.fl.training_plan import Augmentation, LearningRateSchedule, TrainingPlan
from libs.fl.vectorise import load_state_vector, state_vector
from libs.models.private import TRAIN_PRIVATELY
from libs.models.registry import ARCHITECTURES, build_model
from libs.mpc.prg import SEED_BYTES

FALSE_ALARM = 1e-6
SIZE = 16
RATE = 0.5
PRIVACY = PrivacyParameters(target_epsilon=8.0, delta=1e-4, max_grad_norm=0.3)
PLAN = TrainingPlan(
    model="small_cnn_private",
    image_size=SIZE,
    rounds=3,
    learning_rate=RATE,
    lr_schedule=LearningRateSchedule.CONSTANT,
    momentum=0.0,
    batch_size=64,
    privacy=PRIVACY,
)


@pytest.fixture(scope="module")
def images() -> ImageSet:
    return make_phantoms(200, size=SIZE, seed=0)


def _model(seed: int = 0) -> nn.Module:
    return build_model("small_cnn_private", channels=1, classes=2, size=SIZE, seed=seed)


def _with(**changes: object) -> TrainingPlan:
    privacy = {name: changes.pop(name) for name in list(changes) if name in PrivacyParameters.model_fields}
    return PLAN.model_copy(update={"privacy": PRIVACY.model_copy(update=privacy), **changes})


def _randomness(seed: int) -> PrivateRandomness:
    return PrivateRandomness(Secret(seed.to_bytes(SEED_BYTES, "big")))


def _train(images: ImageSet, *, plan: TrainingPlan = PLAN, **choices: object) -> LocalResult:
    return train_locally(_model(), images, plan, **{"round_number": 1, "seed": 1} | choices)  # type: ignore[arg-type]


def _one_step(
    training: ImageSet, plan: TrainingPlan, *, seed: int = 1, randomness: PrivateRandomness | None = None
) -> np.ndarray:
    """The sum that the noise went on, times -1: update * batch size / learning rate. Shape (parameters,)."""
    module = _model()
    before = state_vector(module)
    train_privately(
        module,
        training,
        plan,
        torch.optim.SGD(module.parameters(), lr=RATE),
        records=plan.batch_size,  # so everybody takes part, and an epoch is one step
        generator=torch.Generator().manual_seed(0),
        randomness=randomness or _randomness(seed),
    )
    return (state_vector(module).astype(np.float64) - before) * (-plan.batch_size / RATE)


class _Choosing(PrivateRandomness):
    """Chooses the images that a test says, and remembers what it was asked."""

    def __init__(self, *chosen: int) -> None:
        super().__init__(Secret(bytes(SEED_BYTES)))
        self._chosen = np.array(chosen, np.int64)
        self.asked: list[tuple[int, float]] = []

    def choose(self, count: int, *, probability: float) -> npt.NDArray[np.int64]:
        self.asked.append((count, probability))
        return self._chosen


def _clipped_sum(images: ImageSet, *, bound: float) -> np.ndarray:
    """The slow oracle: one image at a time, each gradient scaled to L2 norm <= bound, then added."""
    module = _model()
    names = sorted(name for name, _ in module.named_parameters())
    total = 0.0
    for i in range(len(images)):
        module.zero_grad()
        logits = module(to_model_input(images.images[i : i + 1]))
        functional.cross_entropy(logits, torch.from_numpy(images.labels[i : i + 1])).backward()
        parameters = dict(module.named_parameters())
        gradient = torch.cat([parameters[name].grad.flatten() for name in names]).numpy()
        norm = float(np.linalg.norm(gradient))
        assert norm > 0
        total = total + gradient * min(1.0, bound / norm)
    return np.asarray(total)


# ------------------------------------------------------------ clipping and noise


@pytest.mark.parametrize("bound", [0.05, 0.6, 100.0])
def test_a_step_adds_the_clipped_gradients_of_all_images_one_by_one(images: ImageSet, bound: float) -> None:
    assert len(images) > MOST_AT_ONCE  # parts are added up
    plan = _with(max_grad_norm=bound, noise_multiplier=1e-9, batch_size=len(images))
    expected = _clipped_sum(images, bound=bound)
    assert np.abs(_one_step(images, plan) - expected).max() < 2e-3 * np.abs(expected).max()


def test_one_image_moves_the_sum_by_at_most_the_bound(images: ImageSet) -> None:
    plan = _with(max_grad_norm=0.05, noise_multiplier=1e-9, batch_size=len(images))
    without = images.select(np.arange(len(images) - 1))
    moved = np.linalg.norm(_one_step(images, plan) - _one_step(without, plan))
    assert 0.04 < moved < 0.051


def test_noise_has_the_variance_that_is_accounted_for(images: ImageSet) -> None:
    nobody = images.select(np.zeros(0, np.int64))
    plan = _with(noise_multiplier=2.0, max_grad_norm=0.7)
    noise = np.concatenate([_one_step(nobody, plan, seed=seed) for seed in range(4)]) / (2.0 * 0.7)
    chi_square = float((noise**2).sum())
    assert stats.chi2.sf(chi_square, noise.size) > FALSE_ALARM
    assert stats.chi2.cdf(chi_square, noise.size) > FALSE_ALARM
    assert stats.kstest(noise, "norm").pvalue > FALSE_ALARM


def test_the_sum_is_divided_by_the_batch_size_of_the_plan_and_not_by_how_many_came(images: ImageSet) -> None:
    few = images.select(np.arange(50))
    plan = _with(max_grad_norm=0.05, noise_multiplier=1e-9, batch_size=len(images))
    expected = _clipped_sum(few, bound=0.05)
    assert np.abs(_one_step(few, plan) - expected).max() < 2e-3 * np.abs(expected).max()


def test_a_step_learns_from_those_alone_whom_chance_chose(images: ImageSet) -> None:
    plan = _with(max_grad_norm=0.05, noise_multiplier=1e-9)
    expected = _clipped_sum(images.select(np.array([3, 7])), bound=0.05)
    found = _one_step(images, plan, randomness=_Choosing(3, 7))
    assert np.abs(found - expected).max() < 2e-3 * np.abs(expected).max()


def test_everybody_is_chosen_at_the_rate_that_is_accounted_for(images: ImageSet) -> None:
    randomness = _Choosing(3, 7)
    _train(images, randomness=randomness)
    training, _ = divide(images, PLAN)
    event = planned_event(PLAN, records=len(images), runs=1)
    assert isinstance(event, SampledGaussian)
    assert randomness.asked == [(len(training), event.sample_rate)] * event.steps
    assert event.sample_rate == 64 / 200


def test_every_step_draws_noise_of_its_own(images: ImageSet) -> None:
    nobody = images.select(np.zeros(0, np.int64))
    one = _one_step(nobody, _with(noise_multiplier=1.0))
    four = _one_step(nobody, _with(noise_multiplier=1.0, local_epochs=4))
    assert four.std() / one.std() == pytest.approx(2.0, rel=0.1)


def test_steps_follow_from_the_number_of_images_also_when_nobody_is_chosen(images: ImageSet) -> None:
    heard: list[float] = []
    model = _model()
    train_privately(
        model,
        images.select(np.arange(8)),
        _with(batch_size=2),
        torch.optim.SGD(model.parameters(), lr=RATE),
        records=40,
        generator=torch.Generator(),
        randomness=_randomness(1),
        on_progress=heard.append,
    )
    assert len(heard) == 20
    assert heard[-1] == 1


# ------------------------------------------------------------ several views of an image

TURNED = Augmentation(rotation_degrees=30.0, contrast=0.5)


def test_the_mean_gradient_of_an_images_views_is_clipped_and_not_each_of_them(images: ImageSet) -> None:
    one = images.select(np.array([3]))
    plan = _with(max_grad_norm=0.05, noise_multiplier=1e-9, batch_size=2, views=6, augmentation=TURNED)
    moved = float(np.linalg.norm(_one_step(one, plan)))
    assert 0.049 < moved < 0.051


def test_one_image_of_many_views_is_the_mean_over_them(images: ImageSet) -> None:
    one = images.select(np.array([3, 9]))
    plan = _with(max_grad_norm=1e4, noise_multiplier=1e-12, batch_size=2, views=5, augmentation=TURNED)
    generator = torch.Generator().manual_seed(0)
    module = _model()
    x = augment(to_model_input(one.images[[0] * 5 + [1] * 5]), TURNED, generator=generator)
    labels = torch.from_numpy(one.labels[[0] * 5 + [1] * 5])
    (functional.cross_entropy(module(x), labels, reduction="sum") / 5).backward()
    parameters = dict(module.named_parameters())
    expected = torch.cat([parameters[name].grad.flatten() for name in sorted(parameters)]).numpy()
    assert np.abs(_one_step(one, plan) - expected).max() < 2e-3 * np.abs(expected).max()


def test_views_cost_nothing_where_nothing_differs_between_them() -> None:
    assert views_of(_with(views=6, augmentation=TURNED)) == 6
    assert views_of(_with(views=6)) == 1


# ------------------------------------------------------------ a round


def test_the_update_is_noisy_and_no_metrics_are_told(images: ImageSet) -> None:
    first, again = _train(images), _train(images)
    assert first.metrics == again.metrics == RoundMetrics()
    assert not np.array_equal(first.update, again.update)
    steps = -(-len(images) // PLAN.batch_size)
    noise = noise_multiplier(PLAN, records=len(images)) * PRIVACY.max_grad_norm * RATE / PLAN.batch_size
    difference = (first.update - again.update).astype(np.float64)
    assert difference.std() == pytest.approx(noise * math.sqrt(2 * steps), rel=0.25)


def test_the_same_secret_gives_the_same_update(images: ImageSet) -> None:
    first = _train(images, randomness=_randomness(5))
    assert np.array_equal(first.update, _train(images, randomness=_randomness(5)).update)
    assert not np.array_equal(first.update, _train(images, randomness=_randomness(6)).update)


def test_validation_images_change_nothing(images: ImageSet) -> None:
    training, validation = divide(images, PLAN)
    assert len(training)
    assert len(validation)
    held = set(validation.names)
    blank = images.images.copy()
    blank[[i for i, name in enumerate(images.names) if name in held]] = 0
    changed = ImageSet(blank, images.labels, images.patients, images.names)
    first = _train(images, randomness=_randomness(5))
    assert np.array_equal(first.update, _train(changed, randomness=_randomness(5)).update)


def test_nobody_changes_sides_because_somebody_else_is_there(images: ImageSet) -> None:
    whole = set(divide(images, PLAN)[1].patients)
    patients = sorted(set(images.patients))
    for gone in patients[:5]:
        rest = images.select([i for i, patient in enumerate(images.patients) if patient != gone])
        assert set(divide(rest, PLAN)[1].patients) == whole - {gone}


def test_a_planned_study_ends_within_its_epsilon(images: ImageSet) -> None:
    assert planned_epsilon(PLAN, records=len(images)) <= 8.0
    _train(images, round_number=3)
    with pytest.raises(InvalidInput, match="rounds 1 to 3"):
        _train(images, round_number=4)


def test_a_plan_with_too_little_noise_stops_as_soon_as_it_must(images: ImageSet) -> None:
    plan = _with(noise_multiplier=0.9 * noise_multiplier(PLAN, records=len(images)))
    allowed = [r for r in (1, 2, 3) if planned_epsilon(plan, records=len(images), runs=r) <= 8.0]
    assert allowed == [1, 2]
    _train(images, plan=plan, round_number=2)
    model = _model()
    before = state_vector(model)
    with pytest.raises(FailedPrecondition, match="epsilon of 8"):
        train_locally(model, images, plan, round_number=3, seed=1)
    assert np.array_equal(state_vector(model), before)


def test_a_model_in_which_images_mix_is_refused(images: ImageSet) -> None:
    model = build_model("small_cnn", channels=1, classes=2, size=SIZE, seed=0)
    with pytest.raises(InvalidInput, match="BatchNorm"):
        train_locally(model, images, PLAN, round_number=1, seed=1)


@pytest.mark.parametrize("name", [n for n in ARCHITECTURES if not n.startswith("vgg")])
def test_plans_may_name_just_the_models_that_opacus_can_train(name: str) -> None:
    from libs.fl.private_training import require_separable

    model = build_model(name, channels=1, classes=2, size=32, seed=0)
    if name in TRAIN_PRIVATELY:
        require_separable(model)
    else:
        with pytest.raises(InvalidInput, match="BatchNorm"):
            require_separable(model)


def test_a_model_can_be_trained_again_and_evaluated_afterwards(images: ImageSet) -> None:
    model = _model()
    for round_number in (1, 2):
        train_locally(model, images, PLAN, round_number=round_number, seed=round_number)
    assert type(model) is type(_model())
    assert not any(hasattr(parameter, "grad_sample") for parameter in model.parameters())
    assert predict_probabilities(model, images.images).shape == (len(images),)
    load_state_vector(_model(1), state_vector(model))


def test_bounds_of_a_private_model_come_from_made_up_images(images: ImageSet) -> None:
    real = calibration_images(images, PLAN.model_copy(update={"privacy": None}))
    assert set(real.names) <= set(divide(images, PLAN.model_copy(update={"privacy": None}))[0].names)
    other = make_phantoms(100, size=SIZE, seed=9)
    mine, theirs = calibration_images(images, PLAN), calibration_images(other, PLAN)
    assert np.array_equal(mine.images, theirs.images)
    assert len(mine) == 256


def test_private_training_learns_from_made_up_images() -> None:
    plan = TrainingPlan(
        model="small_cnn_private",
        image_size=28,
        rounds=4,
        local_epochs=2,
        learning_rate=RATE,
        batch_size=128,
        augmentation=Augmentation(shift=0.02),
        privacy=PrivacyParameters(target_epsilon=60.0, delta=1e-4),
    )
    trained = train_without_sharing(make_phantoms(600, size=28, seed=0), plan, owner="a")
    test = make_phantoms(200, size=28, seed=1)
    assert trained.metrics == RoundMetrics()
    assert auc(predict_probabilities(trained.module, test.images), test.labels) > 0.75


REAL = Path(__file__).parents[3].parent / "shared" / "data" / "pneumoniamnist.npz"


@pytest.mark.slow
@pytest.mark.skipif(not REAL.is_file(), reason="PneumoniaMNIST is not on this machine")
def test_three_hospitals_tell_real_radiographs_apart_at_epsilon_8_and_so_do_the_parties() -> None:
    train, test = load_train_and_test(REAL, size=28)
    run = run_privately(train, test, epsilon=8.0, delta=1e-4, hospitals=3, seed=0)
    assert run.spent <= 8.0
    assert run.auc >= 0.93
    assert run.same_label >= 0.995
    assert run.largest_logit_difference <= 0.02
