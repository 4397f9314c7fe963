"""One hospital's part of one training round: from the current weights to an update."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.nn import functional

from libs.core.errors import InvalidInput
from libs.data.imageset import CLASS_NAMES, POSITIVE, ImageSet, require_both_classes
from libs.data.partition import split_by_patient, split_each_patient
from libs.data.transforms import to_model_input
from libs.fl.augmentation import augment
from libs.fl.evaluation import predict_logits
from libs.fl.metrics import RoundMetrics, score_histogram
from libs.fl.privacy import require_within_target
from libs.fl.privacy_parameters import PrivacyUnit
from libs.fl.private_randomness import PrivateRandomness
from libs.fl.training_plan import Optimizer, TrainingPlan
from libs.fl.vectorise import state_vector


@dataclass(frozen=True)
class LocalResult:
    """What training gave: `update` = weights after - weights before, laid out as by `state_vector`.

    `steps` are the optimizer's, counted without privacy only.
    """

    update: npt.NDArray[np.float32]
    metrics: RoundMetrics
    steps: int = 0

    def __repr__(self) -> str:
        return f"LocalResult(update=<{self.update.size} values, redacted>, metrics=<redacted>)"


def divide(imageset: ImageSet, plan: TrainingPlan) -> tuple[ImageSet, ImageSet]:
    """(training, validation) part of a hospital's images: disjoint by patient, the same in every round.

    With privacy, one patient more or less moves nobody else to the other part.
    """
    require_both_classes(imageset)
    if plan.privacy is not None:
        return split_each_patient(imageset, fraction=plan.validation_fraction, seed=plan.seed)
    return split_by_patient(imageset, fraction=plan.validation_fraction, seed=plan.seed)


def training_seed(seed: int, *, hospital: str, round_number: int) -> int:
    """63 bits from SHA-256: other numbers for each hospital and round, the same for the same study."""
    text = json.dumps(["trefoil-training-seed", seed, hospital, round_number])
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") >> 1


def train_locally(
    module: nn.Module,
    imageset: ImageSet,
    plan: TrainingPlan,
    *,
    round_number: int,
    seed: int,
    on_progress: Callable[[float], None] | None = None,
    randomness: PrivateRandomness | None = None,
    correction: Callable[[], None] | None = None,
) -> LocalResult:
    """Train `module` (in place) for `plan.local_epochs` over the hospital's training part.

    `round_number` counts from 1 and sets the learning rate; `seed` must differ between hospitals and
    rounds. The result is a function of the weights, images, plan, round and seed alone (for one number of
    torch threads, which the caller sets). `on_progress` hears the fraction done, 0 to 1, after every batch.
    `correction` changes the gradients before each step (not with privacy: the plan refuses that).
    Raises InvalidInput when the images do not fit the plan or training diverges.

    With `plan.privacy` the update carries noise, and no metrics are told, since no noise would cover them.
    `randomness` is then the secret of this run, drawn from the system without it: two runs of one round are
    two releases. Raises FailedPrecondition, before anything is trained, when the rounds up to this one,
    trained once each, cost more than the plan's epsilon.
    """
    _check(imageset, plan)
    training, validation = divide(imageset, plan)
    before = state_vector(module)
    generator = torch.Generator().manual_seed(seed)
    optimizer = _optimizer(module, plan, learning_rate=plan.learning_rate_in(round_number=round_number))
    if plan.privacy is not None:
        require_within_target(plan, records=len(imageset), runs=round_number)
    if plan.privacy is not None and plan.privacy.unit is PrivacyUnit.RECORD:
        # Opacus takes seconds to import, and plans without privacy need nothing of it.
        from libs.fl.private_training import train_privately  # noqa: PLC0415

        train_privately(
            module,
            training,
            plan,
            optimizer,
            records=len(imageset),
            generator=generator,
            randomness=randomness or PrivateRandomness.from_system(),
            on_progress=on_progress,
        )
        return LocalResult(update=_difference(module, before), metrics=RoundMetrics())
    loss_sum = _train(
        module,
        training,
        plan,
        optimizer,
        generator=generator,
        on_progress=on_progress,
        correction=correction,
    )
    return LocalResult(
        update=_difference(module, before),
        # The parties' noise is on updates alone, so with it metrics stay at home.
        metrics=_measure(module, validation, loss_sum, len(training))
        if plan.privacy is None
        else RoundMetrics(),
        steps=plan.local_epochs * _batches(training, plan),
    )


def _batches(training: ImageSet, plan: TrainingPlan) -> int:
    return max(1, -(-len(training) // plan.batch_size))


def _difference(module: nn.Module, before: npt.NDArray[np.float32]) -> npt.NDArray[np.float32]:
    update = state_vector(module) - before
    if not np.isfinite(update).all():
        raise InvalidInput(
            "Training diverged: weights are no longer finite. Lower learning_rate in a new plan."
        )
    return update


def _check(imageset: ImageSet, plan: TrainingPlan) -> None:
    if imageset.size != plan.image_size:
        raise InvalidInput(f"The plan is for images of {plan.image_size} pixels, not {imageset.size}.")
    if plan.channels != 1 or plan.classes != len(CLASS_NAMES):
        raise InvalidInput(f"Radiographs have one channel and {len(CLASS_NAMES)} classes. Correct the plan.")


def _train(
    module: nn.Module,
    training: ImageSet,
    plan: TrainingPlan,
    optimizer: torch.optim.Optimizer,
    *,
    generator: torch.Generator,
    on_progress: Callable[[float], None] | None,
    correction: Callable[[], None] | None,
) -> float:
    """Loss summed over the samples of the last epoch, as they were seen."""
    labels = torch.from_numpy(training.labels)
    adjustment = _log_frequencies(labels) if plan.balance_classes else torch.zeros(len(CLASS_NAMES))
    class_weights = None if plan.class_weights is None else torch.tensor(plan.class_weights)
    batches = _batches(training, plan)
    loss_sum = 0.0
    module.train()
    for epoch in range(plan.local_epochs):
        loss_sum = 0.0
        order = torch.randperm(len(training), generator=generator)
        # Parts of nearly equal size: no last batch of one image, which BatchNorm could not normalise.
        for i, chosen in enumerate(torch.tensor_split(order, batches)):
            x = augment(
                to_model_input(training.images[chosen.numpy()]), plan.augmentation, generator=generator
            )
            logits = module(x) + adjustment
            loss = _loss(logits, labels[chosen], plan, class_weights)
            optimizer.zero_grad(set_to_none=True)
            loss.backward()  # type: ignore[no-untyped-call]
            if correction is not None:
                correction()
            optimizer.step()
            loss_sum += float(loss.detach()) * len(chosen)
            if on_progress is not None:
                on_progress((epoch * batches + i + 1) / (plan.local_epochs * batches))
    return loss_sum


def _loss(
    logits: torch.Tensor, labels: torch.Tensor, plan: TrainingPlan, class_weights: torch.Tensor | None
) -> torch.Tensor:
    """The batch's mean. Weights are not divided by their sum: an image counts the same in every batch."""
    if class_weights is None:
        return functional.cross_entropy(logits, labels, label_smoothing=plan.label_smoothing)
    total = functional.cross_entropy(
        logits, labels, weight=class_weights, label_smoothing=plan.label_smoothing, reduction="sum"
    )
    return total / len(labels)


def _log_frequencies(labels: torch.Tensor) -> torch.Tensor:
    """Log of each class's share of the images. Shape (classes,).

    Added to the logits while training, so that the network itself learns the odds for equally common
    classes ("logit adjustment", Menon et al., 2021; in federations Zhang et al., 2022). All hospitals then
    learn the same thing however their patients are mixed. Weighing the loss instead would let the eight
    healthy patients of a hospital full of pneumonia make half of its gradient.
    """
    counts = torch.bincount(labels, minlength=len(CLASS_NAMES)).to(torch.float32)
    return torch.log(counts / counts.sum())


def _optimizer(module: nn.Module, plan: TrainingPlan, *, learning_rate: float) -> torch.optim.Optimizer:
    """A fresh one each round (its state never leaves a hospital). Biases and BatchNorm are not decayed."""
    decayed = [p for p in module.parameters() if p.ndim > 1]
    others = [p for p in module.parameters() if p.ndim <= 1]
    groups = [
        {"params": decayed, "weight_decay": plan.weight_decay},
        {"params": others, "weight_decay": 0.0},
    ]
    if plan.optimizer is Optimizer.ADAMW:
        return torch.optim.AdamW(groups, lr=learning_rate)
    return torch.optim.SGD(groups, lr=learning_rate, momentum=plan.momentum, nesterov=plan.momentum > 0)


def _measure(module: nn.Module, validation: ImageSet, loss_sum: float, samples: int) -> RoundMetrics:
    logits = predict_logits(module, validation.images)
    labels = torch.from_numpy(validation.labels)
    validation_loss = float(functional.cross_entropy(logits, labels, reduction="sum"))
    probabilities = torch.softmax(logits, dim=1)[:, POSITIVE].numpy()
    positive, predicted = validation.labels == POSITIVE, probabilities >= 0.5
    return RoundMetrics(
        train_loss_sum=loss_sum,
        train_samples=samples,
        validation_loss_sum=validation_loss,
        validation_samples=len(validation),
        true_positives=int((predicted & positive).sum()),
        false_positives=int((predicted & ~positive).sum()),
        true_negatives=int((~predicted & ~positive).sum()),
        false_negatives=int((~predicted & positive).sum()),
        positive_scores=score_histogram(probabilities[positive]),
        negative_scores=score_histogram(probabilities[~positive]),
    )
