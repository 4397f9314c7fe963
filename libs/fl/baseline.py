"""The same training without a federation: what one owner of some images gets from them alone."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from torch import nn

from libs.data.imageset import ImageSet
from libs.fl.local_training import train_locally, training_seed
from libs.fl.metrics import RoundMetrics
from libs.fl.training_plan import TrainingPlan
from libs.models.registry import build_model


@dataclass(frozen=True)
class Baseline:
    """A trained model and the validation metrics after its last round."""

    module: nn.Module
    metrics: RoundMetrics


def train_without_sharing(
    imageset: ImageSet,
    plan: TrainingPlan,
    *,
    owner: str,
    on_progress: Callable[[float], None] | None = None,
) -> Baseline:
    """As many epochs at the same learning rates as a federated study of this plan gives each image.

    With all hospitals' images together this is the centralised baseline, with one hospital's it is what
    that hospital would have alone. `owner` only seeds the randomness. Errors as `train_locally`.
    """
    module = build_model(
        plan.model, channels=plan.channels, classes=plan.classes, size=plan.image_size, seed=plan.seed
    )
    metrics = RoundMetrics()
    for round_number in range(1, plan.rounds + 1):
        seed = training_seed(plan.seed, hospital=owner, round_number=round_number)
        metrics = train_locally(module, imageset, plan, round_number=round_number, seed=seed).metrics
        if on_progress is not None:
            on_progress(round_number / plan.rounds)
    return Baseline(module=module, metrics=metrics)
