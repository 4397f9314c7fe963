"""What one hospital with very few images sends after a round: the best that an attacker can hope for."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from libs.core.errors import InvalidInput
from libs.data.imageset import ImageSet
from libs.data.transforms import to_model_input
from libs.fl.presets import default_plan
from libs.fl.privacy import noise_multiplier
from libs.fl.privacy_parameters import PrivacyParameters
from libs.fl.private_randomness import PrivateRandomness
from libs.fl.training_plan import TrainingPlan
from libs.fl.vectorise import state_vector

Update = npt.NDArray[np.floating[Any]]
"""Shape (parameters,), laid out as by `state_vector`."""


@dataclass(frozen=True)
class LocalSteps:
    """How the hospital trains: `count` steps of plain SGD, each over all of its images.

    No momentum, no augmentation, no shuffling: whatever would make the update harder to read is left out.
    """

    learning_rate: float = 0.03
    count: int = 1

    def __post_init__(self) -> None:
        if not 0 < self.learning_rate <= 10 or not 1 <= self.count <= 16:
            raise InvalidInput("A local run has 1 to 16 steps at a learning rate above 0 and up to 10.")


def update_in_clear(module: nn.Module, images: ImageSet, steps: LocalSteps) -> Update:
    """Weights after minus before, as `train_locally` computes them. `module` stays as it was."""
    trained = copy.deepcopy(module).train()
    optimizer = torch.optim.SGD(trained.parameters(), lr=steps.learning_rate)
    pixels, labels = to_model_input(images.images), torch.from_numpy(images.labels)
    for _ in range(steps.count):
        optimizer.zero_grad(set_to_none=True)
        functional.cross_entropy(trained(pixels), labels).backward()  # type: ignore[no-untyped-call]
        optimizer.step()
    return state_vector(trained) - state_vector(module)


def update_with_noise(
    module: nn.Module,
    images: ImageSet,
    steps: LocalSteps,
    *,
    plan: TrainingPlan,
    records: int,
    randomness: PrivateRandomness | None = None,
) -> Update:
    """The same steps by the code that trains with DP-SGD, at the noise with which `plan` trains a hospital of
    `records` images.

    Every step takes all the images and nobody else's, which is worse for them than the plan's sampling: the
    plan's epsilon is a promise for many more steps over many more images.
    """
    # Opacus takes seconds to import.
    from libs.fl.private_training import train_privately  # noqa: PLC0415

    if plan.privacy is None:
        raise InvalidInput("This plan trains without noise. Give it privacy parameters first.")
    noise = noise_multiplier(plan, records=records)
    fixed = plan.privacy.model_dump() | {"noise_multiplier": noise}
    few = TrainingPlan.checked(
        plan.model_dump()
        | {
            "privacy": fixed,
            "batch_size": max(2, len(images)),
            "local_epochs": steps.count,
            "augmentation": {},
        }
    )
    trained = copy.deepcopy(module).train()
    train_privately(
        trained,
        images,
        few,
        torch.optim.SGD(trained.parameters(), lr=steps.learning_rate),
        records=len(images),
        generator=torch.Generator(),
        randomness=randomness or PrivateRandomness.from_system(),
    )
    return state_vector(trained) - state_vector(module)


def private_plan(*, model: str, image_size: int, images: int, epsilon: float, delta: float) -> TrainingPlan:
    """The preset with privacy, for hospitals with so many images together."""
    return default_plan(
        model=model,
        image_size=image_size,
        images=images,
        privacy=PrivacyParameters(target_epsilon=epsilon, delta=delta),
    )


Progress = Callable[[float], None]
"""Hears the fraction done, 0 to 1."""
