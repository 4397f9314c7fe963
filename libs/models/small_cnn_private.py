"""The network for images of about 28x28 that trains with differential privacy."""

from __future__ import annotations

import torch
from torch import nn

_OUTPUT_GAIN = 0.3
"""First answers near even odds, so that no first gradient is clipped for its size alone."""


class SmallCnnPrivate(nn.Module):
    """Three convolutions (16, 32, 32 channels), each halved by an average pool, then `classes`.

    No BatchNorm: it mixes the images of a batch, so no image would have a gradient of its own. Weights are
    drawn such that ReLUs keep the scale of values (He et al., 2015). They are few, because noise is added to
    each: 14,626 at 28x28. Input (B, channels, size, size), output logits (B, classes).
    """

    def __init__(self, *, channels: int, classes: int, size: int) -> None:
        super().__init__()
        self.features = nn.Sequential(*_stage(channels, 16), *_stage(16, 32), *_stage(32, 32))
        side = size // 8
        self.output = nn.Linear(32 * side * side, classes)
        _draw(self.output)
        with torch.no_grad():
            self.output.weight.mul_(_OUTPUT_GAIN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of a batch."""
        logits: torch.Tensor = self.output(self.features(x).flatten(1))
        return logits


def _stage(inputs: int, outputs: int) -> list[nn.Module]:
    convolution = nn.Conv2d(inputs, outputs, 3, padding=1)
    _draw(convolution)
    return [convolution, nn.ReLU(), nn.AvgPool2d(2)]


def _draw(layer: nn.Conv2d | nn.Linear) -> None:
    nn.init.kaiming_normal_(layer.weight, nonlinearity="relu")
    if layer.bias is not None:
        nn.init.zeros_(layer.bias)
