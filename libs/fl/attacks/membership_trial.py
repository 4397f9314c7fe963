"""Models trained on random halves of one set of images: each is a target, and the others are its shadows."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput
from libs.data.imageset import CLASS_NAMES, ImageSet
from libs.fl.attacks.membership import SCORES, margins
from libs.fl.attacks.success import Guesses, Success, measure
from libs.fl.baseline import train_without_sharing
from libs.fl.evaluation import auc, predict_logits, predict_probabilities
from libs.fl.local_training import divide
from libs.fl.training_plan import TrainingPlan

Flags = npt.NDArray[np.bool_]

_OUT, _HELD, _IN = 0, 1, 2
"""What an image was to a model: another hospital's, its validation image, or trained on."""


@dataclass(frozen=True)
class Attacked:
    """One kind of training, attacked: how good its models are on other patients, and each attack's
    success.
    """

    plan: TrainingPlan
    test_auc: float
    train_auc: float
    success: dict[str, Success]


def attack_training(
    images: ImageSet,
    test: ImageSet,
    plan: TrainingPlan,
    *,
    models: int,
    seed: int,
    on_progress: Callable[[float], None] | None = None,
) -> Attacked:
    """Train `models` by `plan`, each on the images of a random half of the patients, and attack each of them.

    Every patient is in exactly half of the halves (Carlini et al., 2022, section V), so that each image has
    as many models with it as without it. Validation images are neither members nor others. All attacks get
    the same number of shadows for every image, so that their number betrays nothing. Raises InvalidInput.
    """
    if models < 6 or models % 2:
        raise InvalidInput("Membership is attacked on an even number of models, at least 6.")
    halves = _halves(images, models=models, seed=seed)
    role = np.full((models, len(images)), _OUT)
    margin = np.empty((models, len(images)))
    test_auc, train_auc = [], []
    for k, half in enumerate(halves):
        own = images.select(np.flatnonzero(half))
        learnt = set(divide(own, plan)[0].names)
        role[k, half] = [_IN if name in learnt else _HELD for name in own.names]
        module = train_without_sharing(own, plan, owner=f"model-{k}").module
        margin[k] = margins(predict_logits(module, images.images).numpy().astype(np.float64), images.labels)
        test_auc.append(auc(predict_probabilities(module, test.images), test.labels))
        train_auc.append(auc(predict_probabilities(module, own.images), own.labels))
        if on_progress is not None:
            on_progress((k + 1) / models)
    patients = np.unique(np.array(images.patients), return_inverse=True)[1].astype(np.int64)
    rng = np.random.default_rng(seed)
    success = {
        name: measure(
            [_guesses(name, k, margin, role, halves, patients, rng) for k in range(models)], seed=seed
        )
        for name in SCORES
    }
    return Attacked(
        plan=plan,
        test_auc=float(np.mean(test_auc)),
        train_auc=float(np.mean(train_auc)),
        success=success,
    )


def some_images(images: ImageSet, *, count: int, seed: int) -> ImageSet:
    """`count` of the images, or all of them when there are fewer, drawn from the seed."""
    return images.select(np.sort(np.random.default_rng(seed).permutation(len(images))[:count]))


def _guesses(
    name: str,
    target: int,
    margin: npt.NDArray[np.float64],
    role: npt.NDArray[np.int64],
    halves: Flags,
    patients: npt.NDArray[np.int64],
    rng: np.random.Generator,
) -> Guesses:
    """One attack on one model, on all images but those that it validated with."""
    kept = role[target] != _HELD
    shadows = np.delete(np.arange(len(margin)), target)
    inside = _evened(halves[shadows][:, kept], rng)
    chosen = _chosen(margin[shadows][:, kept], inside)
    return Guesses(
        scores=SCORES[name](margin[target, kept], *chosen),
        member=role[target, kept] == _IN,
        patient=patients[kept],
    )


def _evened(inside: Flags, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Shadows of each image, as many with it as without: the rows of the first half, then the other's.

    Of the 2 n + 1 shadows (2 n + 1, N), the larger side loses one at random. Shape (2 n, N).
    """
    n = len(inside) // 2
    ranked = np.argsort(np.where(inside, 0.0, 2.0) + rng.random(inside.shape), axis=0)
    with_it = ranked[:n]
    without = ranked[len(inside) - n :]
    return np.concatenate([with_it, without])


def _chosen(
    margin: npt.NDArray[np.float64], rows: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.float64], Flags]:
    """The shadows' margins in those rows, and which of them learnt from the image: the first half."""
    inside = np.zeros(rows.shape, np.bool_)
    inside[: len(rows) // 2] = True
    return np.take_along_axis(margin, rows, axis=0), inside


def _halves(images: ImageSet, *, models: int, seed: int) -> Flags:
    """Which model gets which image. Shape (models, N). By patient, class by class."""
    rng = np.random.default_rng(seed)
    gets: dict[str, Flags] = {}
    for label in range(len(CLASS_NAMES)):
        own = {p for p, of in zip(images.patients, images.labels.tolist(), strict=True) if of == label}
        for patient in sorted(own - gets.keys()):
            gets[patient] = rng.permutation(np.arange(models) < models // 2)
    return np.array([gets[patient] for patient in images.patients]).T
