"""torchvision's residual networks for images of any number of channels."""

from __future__ import annotations

from torch import nn

from libs.models.torchvision_ops import classifier, with_channels


def resnet18(*, channels: int, classes: int, size: int) -> nn.Module:
    """ResNet-18 (He et al., 2016). Input (B, channels, size, size), size >= 32."""
    return with_channels(classifier("resnet18", classes=classes), channels)


def resnet34(*, channels: int, classes: int, size: int) -> nn.Module:
    """ResNet-34, as ResNet-18 with twice the blocks."""
    return with_channels(classifier("resnet34", classes=classes), channels)


def resnet50(*, channels: int, classes: int, size: int) -> nn.Module:
    """ResNet-50 with bottleneck blocks of up to 2048 channels."""
    return with_channels(classifier("resnet50", classes=classes), channels)
