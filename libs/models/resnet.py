"""torchvision's ResNet-18 for images of any number of channels."""

from __future__ import annotations

from torch import nn

from libs.models.torchvision_ops import declare_missing_ops


def resnet18(*, channels: int, classes: int, size: int) -> nn.Module:
    """ResNet-18 (He et al., 2016) without pretrained weights. Input (B, channels, size, size), size >= 32.

    Only the first convolution differs from torchvision's: it takes `channels` channels. Any size works
    because the network ends in a global average.
    """
    declare_missing_ops()
    from torchvision.models import resnet18 as build  # noqa: PLC0415 - the operators must be declared first

    model: nn.Module = build(weights=None, num_classes=classes)
    first = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
    nn.init.kaiming_normal_(first.weight, mode="fan_out", nonlinearity="relu")
    model.conv1 = first
    return model
