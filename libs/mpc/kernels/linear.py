"""Matrix products and convolutions modulo 2^k, in torch's wrapping integer arithmetic.

int32 and int64 overflow in torch exactly as the ring does: two's complement addition and
multiplication are those of Z_2^k. Arrays cross from and to numpy without a copy.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch

from libs.mpc.ring import RingArray


@dataclass(frozen=True)
class ConvolutionShape:
    """Stride, padding and dilation as (rows, columns), and the number of groups."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1


def _tensor(array: RingArray) -> torch.Tensor:
    signed = np.dtype(f"<i{array.dtype.itemsize}")
    return torch.from_numpy(np.ascontiguousarray(array).view(signed))


def _array(tensor: torch.Tensor, like: RingArray) -> RingArray:
    return tensor.contiguous().numpy().view(like.dtype)


def conv2d(x: RingArray, weight: RingArray, shape: ConvolutionShape) -> RingArray:
    """x (N, C, H, W) * weight (O, C/groups, kh, kw) -> (N, O, H', W'), modulo 2^k."""
    product = torch.nn.functional.conv2d(
        _tensor(x),
        _tensor(_spread(weight, shape.dilation)),
        stride=shape.stride,
        padding=shape.padding,
        groups=shape.groups,
    )
    return _array(product, x)


def _spread(weight: RingArray, dilation: tuple[int, int]) -> RingArray:
    """The kernel with zeros between its taps: torch has no dilated convolution of integers."""
    if dilation == (1, 1):
        return weight
    (down, right), (rows, columns) = dilation, weight.shape[2:]
    size = (*weight.shape[:2], down * (rows - 1) + 1, right * (columns - 1) + 1)
    spread = np.zeros(size, dtype=weight.dtype)
    spread[:, :, ::down, ::right] = weight
    return spread


def linear(x: RingArray, weight: RingArray) -> RingArray:
    """x (N, F) * weight (O, F) -> (N, O), modulo 2^k."""
    return _array(_tensor(x) @ _tensor(weight).T, x)
