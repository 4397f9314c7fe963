"""The network for images of 64x64 and more."""

from __future__ import annotations

import torch
from torch import nn

from libs.models.blocks import conv_bn_relu


class MediumCnn(nn.Module):
    """Five convolution stages of 16 to 128 channels with average pools, a global average, one linear layer.

    Input (B, channels, size, size) with size >= 32, output logits (B, classes).
    """

    def __init__(self, *, channels: int, classes: int, size: int) -> None:
        super().__init__()
        self.features = nn.Sequential(
            conv_bn_relu(channels, 16),
            nn.AvgPool2d(2),
            conv_bn_relu(16, 32),
            nn.AvgPool2d(2),
            conv_bn_relu(32, 64),
            nn.AvgPool2d(2),
            conv_bn_relu(64, 128),
            nn.AvgPool2d(2),
            conv_bn_relu(128, 128),
        )
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.output = nn.Linear(128, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of a batch."""
        logits: torch.Tensor = self.output(self.pool(self.features(x)).flatten(1))
        return logits
