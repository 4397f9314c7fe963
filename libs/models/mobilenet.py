"""torchvision's MobileNetV2 for images of any number of channels."""

from __future__ import annotations

from torch import nn

from libs.models.torchvision_ops import classifier, with_channels


def mobilenet_v2(*, channels: int, classes: int, size: int) -> nn.Module:
    """MobileNetV2 (Sandler et al., 2018) with ReLU6: few products, twice the comparisons. size >= 32.

    torchvision draws depthwise weights as if each output summed all channels, so that an untrained network's
    logits are near 1e-10. Drawn for the nine products that there are, outputs keep their size.
    """
    model = with_channels(classifier("mobilenet_v2", classes=classes), channels)
    for layer in model.modules():
        if isinstance(layer, nn.Conv2d) and layer.groups > 1:
            nn.init.kaiming_normal_(layer.weight, mode="fan_in", nonlinearity="relu")
    return model
