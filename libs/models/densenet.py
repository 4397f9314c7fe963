"""torchvision's DenseNet for images of any number of channels."""

from __future__ import annotations

from torch import nn

from libs.models.torchvision_ops import classifier, with_channels


def densenet121(*, channels: int, classes: int, size: int) -> nn.Module:
    """DenseNet-121 (Huang et al., 2017), the usual network for chest radiographs. size >= 32."""
    return with_channels(classifier("densenet121", classes=classes), channels)
