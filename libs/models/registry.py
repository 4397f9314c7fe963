"""Architectures by name. A training plan names one; nobody sends code."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import nn

from libs.core.errors import InvalidInput
from libs.models.densenet import densenet121
from libs.models.medium_cnn import MediumCnn
from libs.models.mobilenet import mobilenet_v2
from libs.models.resnet import resnet18, resnet34, resnet50
from libs.models.small_cnn import SmallCnn
from libs.models.small_cnn_private import SmallCnnPrivate
from libs.models.squeezenet import squeezenet1_1
from libs.models.vgg import vgg11_bn, vgg16_bn


@dataclass(frozen=True)
class Architecture:
    """How to build one, and the smallest image side it accepts."""

    build: Callable[..., nn.Module]
    min_size: int


ARCHITECTURES: dict[str, Architecture] = {
    "small_cnn": Architecture(SmallCnn, min_size=8),
    "small_cnn_private": Architecture(SmallCnnPrivate, min_size=8),
    "medium_cnn": Architecture(MediumCnn, min_size=32),
    "resnet18": Architecture(resnet18, min_size=32),
    "resnet34": Architecture(resnet34, min_size=32),
    "resnet50": Architecture(resnet50, min_size=32),
    "vgg11_bn": Architecture(vgg11_bn, min_size=32),
    "vgg16_bn": Architecture(vgg16_bn, min_size=32),
    "densenet121": Architecture(densenet121, min_size=32),
    "mobilenet_v2": Architecture(mobilenet_v2, min_size=32),
    "squeezenet1_1": Architecture(squeezenet1_1, min_size=32),
}


def architecture_of(name: str, *, size: int) -> Architecture:
    """The architecture. Raises InvalidInput for an unknown name or a size it cannot take."""
    architecture = ARCHITECTURES.get(name)
    if architecture is None:
        raise InvalidInput(f"There is no model {name!r}. Choose one of: {', '.join(ARCHITECTURES)}.")
    if size < architecture.min_size:
        raise InvalidInput(
            f"{name} needs images of at least {architecture.min_size} pixels a side, not {size}. "
            "Choose a larger image size or another model."
        )
    return architecture


def build_model(name: str, *, channels: int, classes: int, size: int, seed: int) -> nn.Module:
    """The architecture with freshly drawn weights, in training mode. Input (B, channels, size, size).

    The same arguments give the same weights on every machine with the same torch: the draw uses its own
    generator state and leaves the caller's as it was. Raises InvalidInput for an unknown name or a size
    the architecture cannot take.
    """
    architecture = architecture_of(name, size=size)
    if channels < 1 or classes < 2:
        raise InvalidInput("A classifier needs at least one channel and two classes.")
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return architecture.build(channels=channels, classes=classes, size=size)
