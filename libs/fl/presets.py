"""Training plans that are known to work, so that a scientist names a model and nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from libs.fl.privacy_parameters import PrivacyParameters
from libs.fl.training_plan import Augmentation, ContributionCheck, ModelAccess, TrainingPlan

_AUGMENTATION = Augmentation(shift=0.08, rotation_degrees=8.0, zoom=0.1, brightness=0.1, contrast=0.2)
_CHECK = ContributionCheck(max_norm=8.0, first_max_norm=15.0)
_EPOCHS_OF_IMAGES = 84_000
_FEWEST_ROUNDS, _MOST_ROUNDS = 12, 24


def default_plan(
    *,
    model: str,
    image_size: int,
    images: int,
    rounds: int | None = None,
    seed: int = 0,
    dataset_tags: Sequence[str] = (),
    privacy: PrivacyParameters | None = None,
    model_access: ModelAccess | None = None,
) -> TrainingPlan:
    """The plan that `make demo` starts from. `images` is how many there are in all hospitals together.

    Many rounds of one local epoch: they end nearer to centralised training than few long ones, and a round
    costs little beside its training. Without `rounds`, small data sets get more of them, so that each plan
    sees about as many images; DECISIONS.md has the figures that these numbers reach. With `privacy`, batches
    are large, because the noise of a step does not grow with its images. Raises InvalidInput.
    """
    if rounds is None:
        rounds = min(max(_EPOCHS_OF_IMAGES // max(images, 1), _FEWEST_ROUNDS), _MOST_ROUNDS)
    return TrainingPlan.checked(
        {
            "model": model,
            "image_size": image_size,
            "rounds": rounds,
            "local_epochs": 1,
            "seed": seed,
            "dataset_tags": tuple(dataset_tags),
            "privacy": privacy,
            "model_access": model_access or ModelAccess(),
            **(_in_clear(images) if privacy is None else _with_noise()),
        }
    )


def _in_clear(images: int) -> dict[str, Any]:
    return {
        "batch_size": 32 if images > 2000 else 16,
        "learning_rate": 0.03,
        "weight_decay": 5e-4,
        "balance_classes": True,
        "augmentation": _AUGMENTATION,
        "contribution_check": _CHECK,
    }


def _with_noise() -> dict[str, Any]:
    # No metrics are told, so images that only validate would be lost; the field allows no 0.
    return {
        "batch_size": 256,
        "learning_rate": 2.0,
        "augmentation": _AUGMENTATION,
        "validation_fraction": 0.001,
    }
