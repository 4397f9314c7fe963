"""The public parameters of a convolution."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass


@dataclass(frozen=True)
class ConvolutionShape:
    """Stride, padding and dilation as (rows, columns), and the number of groups."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def output(self, kernel: Sequence[int], image: Sequence[int]) -> tuple[int, int]:
        """Rows and columns of the output."""
        rows, columns = (
            (size + 2 * padding - dilation * (taps - 1) - 1) // stride + 1
            for size, taps, stride, padding, dilation in zip(
                image, kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )
        return rows, columns
