"""torchvision's VGG networks with BatchNorm for images of any number of channels."""

from __future__ import annotations

from torch import nn

from libs.models.torchvision_ops import classifier, with_channels


def vgg11_bn(*, channels: int, classes: int, size: int) -> nn.Module:
    """VGG-11 (Simonyan and Zisserman, 2015): 129 million weights, 103 million in one linear layer."""
    return with_channels(classifier("vgg11_bn", classes=classes), channels)


def vgg16_bn(*, channels: int, classes: int, size: int) -> nn.Module:
    """VGG-16: 134 million weights. Any size from 32: its features are averaged, or repeated, to 7x7."""
    return with_channels(classifier("vgg16_bn", classes=classes), channels)
