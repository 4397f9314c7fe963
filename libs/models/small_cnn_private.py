"""The network that trains with differential privacy: fixed edge filters, and one layer that learns."""

from __future__ import annotations

import math

import torch
from torch import nn

_SIDE = 28
"""Larger images are averaged down to this many pixels, or up to twice as many, first."""
_KERNEL = 7
_ORIENTATIONS = 4
_BANDS = ((0.30, 1.2, 5), (0.20, 2.0, 7))
"""Cycles per pixel, standard deviation of the envelope in pixels, and side of the filters of each band."""
_GAIN = 2.0
"""Norm of a filter. Values after pooling are then about as large as the clipping norm of 1 wants them."""
_CELLS = 4
_OUTPUT_GAIN = 0.3
"""First answers near even odds, so that no first gradient is clipped for its size alone."""


class SmallCnnPrivate(nn.Module):
    """How strong edges of each direction and width are in each cell of a grid, weighed by one linear layer.

    Noise goes on every weight that is trained, so only the last layer is: 1,026 weights at 28x28. The filters
    are Gabor's, written down and not learnt (as Tramèr and Boneh, ICLR 2021, do with wavelets), both signs
    of each. They add up to zero and see no padding, so neither brightness nor the border moves them. No
    BatchNorm: it mixes the images of a batch. Input (B, channels, size, size), output logits (B, classes).
    """

    def __init__(self, *, channels: int, classes: int, size: int) -> None:
        super().__init__()
        smaller = max(1, size // _SIDE)
        filters = _filters(channels)
        self.reduce = nn.AvgPool2d(smaller)
        self.edges = nn.Conv2d(channels, len(filters), _KERNEL, bias=False)
        # Not a parameter, so it is neither trained nor given noise nor sent: every machine computes it.
        del self.edges.weight
        self.edges.register_buffer("weight", filters, persistent=False)
        self.relu = nn.ReLU()
        side = size // smaller - _KERNEL + 1
        cell = max(1, side // _CELLS)
        self.pool = nn.AvgPool2d(cell)
        self.output = nn.Linear(len(filters) * (side // cell) ** 2, classes)
        nn.init.kaiming_normal_(self.output.weight, nonlinearity="relu")
        nn.init.zeros_(self.output.bias)
        with torch.no_grad():
            self.output.weight.mul_(_OUTPUT_GAIN)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Logits of a batch."""
        x = self.pool(self.relu(self.edges(self.reduce(x))))
        logits: torch.Tensor = self.output(x.flatten(1))
        return logits


def _filters(channels: int) -> torch.Tensor:
    """Shape (2 bands * 4 orientations * 2 phases * 2 signs, channels, 7, 7); each sums to 0, norm 2."""
    found = [
        _gabor(frequency, width, side, angle=math.pi * turn / _ORIENTATIONS, phase=phase)
        for frequency, width, side in _BANDS
        for turn in range(_ORIENTATIONS)
        for phase in (0.0, math.pi / 2)
    ]
    filters = torch.stack(found)[:, None].repeat(1, channels, 1, 1) * (_GAIN / math.sqrt(channels))
    return torch.cat([filters, -filters]).to(torch.float32)


def _gabor(frequency: float, width: float, side: int, *, angle: float, phase: float) -> torch.Tensor:
    """A wave under a bell, without its mean, at norm 1. Shape (7, 7), zero outside of `side`."""
    places = torch.arange(_KERNEL, dtype=torch.float64) - _KERNEL // 2
    y, x = torch.meshgrid(places, places, indexing="ij")
    inside = (x.abs() <= side // 2) & (y.abs() <= side // 2)
    along = x * math.cos(angle) + y * math.sin(angle)
    bell = torch.exp(-(x**2 + y**2) / (2 * width**2))
    wave = bell * torch.cos(2 * math.pi * frequency * along + phase)
    wave = torch.where(inside, wave - wave[inside].mean(), 0.0)
    unit: torch.Tensor = wave / torch.linalg.vector_norm(wave)
    return unit
