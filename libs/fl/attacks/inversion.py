"""From an update back to the images it was trained on.

The attacker knows the weights before, how the hospital trains, and how many images there are. He looks for
images whose update points where the observed one does: "deep leakage from gradients" (Zhu et al., 2019) with
the label read off the last bias (Zhao et al., 2020), and with cosine similarity, total variation and
simulated local steps (Geiping et al., 2020). BatchNorm's running statistics are part of an update here, and
tell him the mean and variance of every channel (Yin et al., 2021, assume as much).
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from libs.core.errors import InvalidInput
from libs.data.imageset import POSITIVE
from libs.data.transforms import to_model_input
from libs.fl.attacks.local_update import LocalSteps, Progress, Update
from libs.fl.vectorise import load_state_vector

Tensors = dict[str, torch.Tensor]
_TINY = 1e-12


@dataclass(frozen=True)
class Effort:
    """How hard the attacker tries. The best of `restarts` runs, by how well its update fits, counts."""

    iterations: int = 2000
    restarts: int = 1
    rate: float = 0.02
    smoothness: float = 0.1
    """Weight of total variation at the start; it ends at a hundredth of that."""

    def __post_init__(self) -> None:
        if self.iterations < 1 or self.restarts < 1:
            raise InvalidInput("An attack needs at least one iteration and one run.")


@dataclass(frozen=True)
class Reconstruction:
    """images (N, H, W) in [0, 1], labels (N,), and how badly their update fits: 0 would be exactly."""

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64]
    mismatch: float

    def __repr__(self) -> str:
        return f"Reconstruction({len(self.images)} images, redacted, mismatch={self.mismatch:.3g})"


def invert(
    module: nn.Module,
    observed: Update,
    *,
    count: int,
    hospitals: int = 1,
    steps: LocalSteps,
    guess: npt.NDArray[np.uint8],
    effort: Effort,
    seed: int,
    on_progress: Progress | None = None,
) -> Reconstruction:
    """`count` images that explain the `observed` update of `module`, whose weights are those from before.

    `guess` (H, W) is what an X-ray looks like on average, where the search begins. The result is a function
    of the arguments alone. The attack never sees the images; what it is worth is measured by `likeness`. With
    more than one of `hospitals`, the update is their mean and the images are those of all, as many from each.
    Raises InvalidInput for an update that is not this model's.
    """
    if count < 1 or hospitals < 1 or count % hospitals:
        raise InvalidInput("An attack looks for at least one image, and as many of each hospital.")
    target = _named(module, observed)
    start = to_model_input(guess[None])
    labels = infer_labels(module, target, count=count, steps=steps, guess=start)
    # Nobody tells which hospital has which: dealt out evenly, one by one.
    labels = labels.view(count // hospitals, hospitals).T.reshape(-1)
    generator = torch.Generator().manual_seed(seed)
    best: Reconstruction | None = None
    for run in range(effort.restarts):
        noise = torch.randn((count, *start.shape[1:]), generator=generator)
        pixels = (start + 0.1 * noise).clamp(-1, 1)

        def tell(fraction: float, run: int = run) -> None:
            if on_progress is not None:
                on_progress((run + fraction) / effort.restarts)

        found = _search(
            module, target, pixels, labels.view(hospitals, -1), steps=steps, effort=effort, on_progress=tell
        )
        if best is None or found.mismatch < best.mismatch:
            best = found
    assert best is not None
    return best


def infer_labels(
    module: nn.Module, target: Tensors, *, count: int, steps: LocalSteps, guess: torch.Tensor
) -> torch.Tensor:
    """How many of the images are ill, from the last layer's bias. Shape (count,), the healthy first.

    Its gradient is the mean of (probability - label), and the probability is near what the model says of any
    X-ray. For one image its sign alone is the label, whatever the model says (Zhao et al., 2020).
    """
    name = [name for name, layer in module.named_modules() if isinstance(layer, nn.Linear)][-1]
    gradient = -float(target[f"{name}.bias"][POSITIVE]) / (steps.learning_rate * steps.count)
    if count == 1:
        ill = int(gradient < 0)
    else:
        with torch.no_grad():
            quiet = copy.deepcopy(module).eval()
            expected = float(torch.softmax(quiet(guess), dim=1)[0, POSITIVE])
        ill = round(min(max(count * (expected - gradient), 0.0), float(count)))
    return torch.tensor([0] * (count - ill) + [POSITIVE] * ill)


def _search(
    module: nn.Module,
    target: Tensors,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    *,
    steps: LocalSteps,
    effort: Effort,
    on_progress: Progress,
) -> Reconstruction:
    """Adam on the pixels, within the range of images. `labels` (hospitals, images of each)."""
    copied = copy.deepcopy(module).train()
    pixels = pixels.clone().requires_grad_()
    optimizer = torch.optim.Adam([pixels], lr=effort.rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, effort.iterations)
    mismatch = torch.zeros(())
    with _watched(copied) as seen:
        for i in range(effort.iterations):
            updates = [
                _simulate(copied, part, own, steps, seen)
                for part, own in zip(pixels.chunk(len(labels)), labels, strict=True)
            ]
            mean = {name: torch.stack([u[name] for u in updates]).mean(dim=0) for name in updates[0]}
            mismatch = _mismatch(mean, target)
            smoothness = effort.smoothness * 0.01 ** (i / effort.iterations)
            loss = mismatch + smoothness * _total_variation(pixels)
            pixels.grad = torch.autograd.grad(loss, pixels)[0]
            optimizer.step()
            schedule.step()
            with torch.no_grad():
                pixels.clamp_(-1, 1)
            on_progress((i + 1) / effort.iterations)
    images = ((pixels.detach()[:, 0] + 1) / 2).numpy()
    return Reconstruction(images=images, labels=labels.reshape(-1).numpy(), mismatch=float(mismatch.detach()))


def _simulate(
    module: nn.Module,
    pixels: torch.Tensor,
    labels: torch.Tensor,
    steps: LocalSteps,
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]],
) -> Tensors:
    """The update that these images would give, differentiable in the pixels. `seen` is filled by hooks."""
    before = {name: p.detach().requires_grad_() for name, p in module.named_parameters()}
    buffers = {name: b.clone() for name, b in module.named_buffers()}
    for batches in seen.values():
        batches.clear()
    current = before
    for _ in range(steps.count):
        logits = functional_call(module, (current, buffers), (pixels,))
        loss = functional.cross_entropy(logits, labels)
        gradients = torch.autograd.grad(loss, list(current.values()), create_graph=True)
        current = {
            name: p - steps.learning_rate * g for (name, p), g in zip(current.items(), gradients, strict=True)
        }
    update = {name: current[name] - before[name] for name in before}
    return update | _statistics(module, seen)


def _statistics(module: nn.Module, seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]]) -> Tensors:
    """By how much BatchNorm's running mean and variance would move, from what each step normalised."""
    moved = {}
    for name, batches in seen.items():
        layer = module.get_submodule(name)
        assert isinstance(layer, nn.BatchNorm2d)
        assert layer.running_mean is not None
        assert layer.running_var is not None
        momentum = layer.momentum or 0.0
        mean, variance = layer.running_mean, layer.running_var
        for batch_mean, batch_variance in batches:
            mean = (1 - momentum) * mean + momentum * batch_mean
            variance = (1 - momentum) * variance + momentum * batch_variance
        moved[f"{name}.running_mean"] = mean - layer.running_mean
        moved[f"{name}.running_var"] = variance - layer.running_var
    return moved


@contextmanager
def _watched(module: nn.Module) -> Iterator[dict[str, list[tuple[torch.Tensor, torch.Tensor]]]]:
    """Mean and variance of each channel of what reaches every BatchNorm, step by step, by its name."""
    seen: dict[str, list[tuple[torch.Tensor, torch.Tensor]]] = {}
    hooks = []
    for name, layer in module.named_modules():
        if isinstance(layer, nn.BatchNorm2d):
            seen[name] = []

            def note(_: nn.Module, inputs: tuple[torch.Tensor, ...], name: str = name) -> None:
                x = inputs[0]
                seen[name].append((x.mean(dim=(0, 2, 3)), x.var(dim=(0, 2, 3))))

            hooks.append(layer.register_forward_pre_hook(note))
    try:
        yield seen
    finally:
        for hook in hooks:
            hook.remove()


def _mismatch(simulated: Tensors, target: Tensors) -> torch.Tensor:
    """1 - cosine of the weights' updates, and the mean relative error of the statistics' where there are any.

    The cosine does not see the length, which the hospital's number of images, clipping or the weight of its
    contribution may have changed.
    """
    statistics = [name for name in simulated if name.endswith(("running_mean", "running_var"))]
    weights = [name for name in simulated if name not in statistics]
    a = torch.cat([simulated[name].flatten() for name in weights])
    b = torch.cat([target[name].flatten() for name in weights])
    loss: torch.Tensor = 1 - (a @ b) / (a.norm() * b.norm() + _TINY)
    if statistics:
        errors = [
            (simulated[name] - target[name]).norm() / (target[name].norm() + _TINY) for name in statistics
        ]
        loss = loss + 2 * torch.stack(errors).mean()
    return loss


def _total_variation(pixels: torch.Tensor) -> torch.Tensor:
    down = (pixels[..., 1:, :] - pixels[..., :-1, :]).abs().mean()
    across: torch.Tensor = (pixels[..., 1:] - pixels[..., :-1]).abs().mean()
    return down + across


def _named(module: nn.Module, vector: Update) -> Tensors:
    """The vector's parts by the names of the module's state. Raises InvalidInput for another model's."""
    holder = copy.deepcopy(module)
    load_state_vector(holder, vector)
    return {
        name: tensor.detach().clone()
        for name, tensor in holder.state_dict().items()
        if tensor.is_floating_point()
    }
