"""The demo's network for images of about 28x28."""

from __future__ import annotations

import torch
from torch import nn

from libs.models.blocks import conv_bn_relu


class SmallCnn(nn.Module):
    """Three convolutions (16, 32, 64 channels), each halved by an average pool, then 64 and `classes`.

    About 2 million multiply-adds an image at 28x28. Average pools are local under shares, where each stage of
    a max-pool would cost three rounds; BatchNorm is folded into its convolution when the model is released.
    Input (B, channels, size, size), output logits (B, classes).
    """

    def __init__(self, *, channels: int, classes: int, size: int) -> None:
        super().__init__()
        self.stage1 = conv_bn_relu(channels, 16)
        self.stage2 = conv_bn_relu(16, 32)
        self.stage3 = conv_bn_relu(32, 64)
        self.pool = nn.AvgPool2d(2)
        side = size // 8
        self.hidden = nn.Linear(64 * side * side, 64)
        self.relu = nn.ReLU()
        self.output = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of a batch."""
        x = self.pool(self.stage1(x))
        x = self.pool(self.stage2(x))
        x = self.pool(self.stage3(x))
        logits: torch.Tensor = self.output(self.relu(self.hidden(x.flatten(1))))
        return logits
