"""DP-SGD with Opacus's per-sample gradients (Abadi et al., 2016), and randomness of our own."""

from __future__ import annotations

import warnings
from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
from opacus.grad_sample import GradSampleModule
from opacus.optimizers import DPOptimizer
from opacus.validators import ModuleValidator
from torch import nn
from torch.nn import functional

from libs.core.errors import InvalidInput
from libs.data.imageset import ImageSet
from libs.data.transforms import to_model_input
from libs.fl.augmentation import augment
from libs.fl.privacy import noise_multiplier, privacy_of, sample_rate, steps_per_epoch, views_of
from libs.fl.private_randomness import PrivateRandomness
from libs.fl.training_plan import TrainingPlan

MOST_AT_ONCE = 128
"""Images whose gradients are held in memory together: a whole model for each."""


class _NoisyOptimizer(DPOptimizer):  # type: ignore[misc]  # Opacus has no types
    """Opacus's clipping and adding, with noise from `PrivateRandomness` instead of torch's generator."""

    def __init__(self, *args: object, randomness: PrivateRandomness, **kwargs: object) -> None:
        super().__init__(*args, **kwargs)
        self._randomness = randomness

    def add_noise(self) -> None:
        """Gaussian noise on the sum of clipped gradients, before it is divided."""
        for parameter in self.params:
            noise = self._randomness.gaussian(
                tuple(parameter.shape), std=self.noise_multiplier * self.max_grad_norm
            )
            noisy = parameter.summed_grad.to(torch.float64) + torch.from_numpy(noise)
            parameter.grad = noisy.to(parameter.dtype)


def train_privately(
    module: nn.Module,
    training: ImageSet,
    plan: TrainingPlan,
    optimizer: torch.optim.Optimizer,
    *,
    records: int,
    generator: torch.Generator,
    randomness: PrivateRandomness,
    on_progress: Callable[[float], None] | None = None,
) -> None:
    """Train `module` in place: `local_epochs` times `steps_per_epoch` noisy steps, whatever the images are.

    Each step takes each image with `sample_rate`, clips its gradient to `max_grad_norm`, adds noise, and
    divides by the plan's batch size and not by the number that came, which is private. `records` counts the
    images of the data set, `training` are those that are learnt from. `optimizer` belongs to `module`;
    `generator` draws augmentation. Raises InvalidInput for a model in which images of a batch mix, and for a
    plan without privacy.
    """
    require_separable(module)
    noisy = _NoisyOptimizer(
        optimizer,
        noise_multiplier=noise_multiplier(plan, records=records),
        max_grad_norm=privacy_of(plan).max_grad_norm,
        expected_batch_size=plan.batch_size,
        randomness=randomness,
    )
    rate = sample_rate(plan, records=records)
    steps = plan.local_epochs * steps_per_epoch(plan, records=records)
    module.train()
    wrapped = GradSampleModule(module, batch_first=True, loss_reduction="sum")
    try:
        for step in range(steps):
            chosen = randomness.choose(len(training), probability=rate)
            _step(wrapped, noisy, training, chosen, plan, generator=generator)
            if on_progress is not None:
                on_progress((step + 1) / steps)
    finally:
        wrapped.to_standard_module()


def require_separable(module: nn.Module) -> None:
    """Raises InvalidInput when some layer mixes the images of a batch or has no per-sample gradient."""
    if ModuleValidator.validate(module, strict=False):
        raise InvalidInput(
            "This model has layers, such as BatchNorm, in which the images of a batch mix, so no noise can "
            "hide one of them. Choose a model without them for a plan with privacy, like small_cnn_private."
        )


def _step(
    wrapped: nn.Module,
    optimizer: _NoisyOptimizer,
    training: ImageSet,
    chosen: npt.NDArray[np.int64],
    plan: TrainingPlan,
    *,
    generator: torch.Generator,
) -> None:
    """One noisy step over the chosen images, in parts that fit into memory; also when none was chosen."""
    most = max(1, MOST_AT_ONCE // views_of(plan))
    parts = np.array_split(chosen, max(1, -(-len(chosen) // most)))
    optimizer.zero_grad(set_to_none=True)
    for i, part in enumerate(parts):
        # All but the last part only add their clipped gradients to the sum.
        optimizer.signal_skip_step(do_skip=i + 1 < len(parts))
        if len(part):
            x, wanted = _views(training, part, plan, generator=generator)
            loss = functional.cross_entropy(
                wrapped(x), wanted, label_smoothing=plan.label_smoothing, reduction="sum"
            )
            with warnings.catch_warnings():
                # Images need no gradient; Opacus's hooks know how to do without.
                warnings.filterwarnings("ignore", message="Full backward hook is firing")
                loss.backward()  # type: ignore[no-untyped-call]
            _average_views(optimizer, views=views_of(plan))
        else:  # an empty sum, to which noise is added all the same
            for parameter in optimizer.params:
                parameter.grad_sample = parameter.new_zeros((0, *parameter.shape))
        optimizer.step()
        optimizer.zero_grad(set_to_none=True)


def _views(
    training: ImageSet, part: npt.NDArray[np.int64], plan: TrainingPlan, *, generator: torch.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs and labels of the chosen images, each `views` times in a row, every copy changed by itself."""
    copies = np.repeat(part, views_of(plan))
    x = augment(to_model_input(training.images[copies]), plan.augmentation, generator=generator)
    return x, torch.from_numpy(training.labels[copies])


def _average_views(optimizer: _NoisyOptimizer, *, views: int) -> None:
    """One gradient for each image before any is clipped: the mean over its copies (De et al., 2022).

    So an image still moves the sum by at most the clipping norm, however many copies of it there are.
    """
    if views == 1:
        return
    for parameter in optimizer.params:
        each = parameter.grad_sample
        parameter.grad_sample = each.reshape(-1, views, *parameter.shape).mean(dim=1)
