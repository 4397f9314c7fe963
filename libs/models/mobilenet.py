"""torchvision's MobileNetV2 for images of any number of channels."""

from __future__ import annotations

from torch import nn

from libs.models.torchvision_ops import classifier, with_channels


def mobilenet_v2(*, channels: int, classes: int, size: int) -> nn.Module:
    """MobileNetV2 (Sandler et al., 2018) with ReLU6: few products, twice the comparisons. size >= 32."""
    return with_channels(classifier("mobilenet_v2", classes=classes), channels)
