"""Pieces that the architectures share. Only layers that libs/secure_nn can evaluate under shares."""

from __future__ import annotations

from torch import nn


def conv_bn_relu(inputs: int, outputs: int, *, kernel: int = 3, stride: int = 1) -> nn.Sequential:
    """Convolution that keeps the size (at stride 1), BatchNorm, ReLU.

    The convolution has no bias of its own: BatchNorm's takes its place, also after folding.
    """
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )
