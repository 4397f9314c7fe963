"""torchvision's SqueezeNet for images of any number of channels."""

from __future__ import annotations

from torch import nn

from libs.models.torchvision_ops import classifier, with_channels


def squeezenet1_1(*, channels: int, classes: int, size: int) -> nn.Module:
    """SqueezeNet 1.1 (Iandola et al., 2016): 1.2 million weights and no BatchNorm. size >= 32."""
    return with_channels(classifier("squeezenet1_1", classes=classes), channels)
