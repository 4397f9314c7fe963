"""Matrix products and convolutions modulo 2^k: picks the fastest exact way for a size and a device.

`conv2d_plain` and `linear_plain` are torch's wrapping integer arithmetic, two's complement like Z_2^k: the
oracle of all others, and the fastest for small products. Measurements are in libs/mpc/README.md.
"""

from __future__ import annotations

import numpy as np
import torch

from libs.mpc.kernels import byte_product, columns, limbs
from libs.mpc.kernels.byte_product import PreparedWeights
from libs.mpc.kernels.device import Device
from libs.mpc.kernels.shapes import ConvolutionShape
from libs.mpc.ring import RingArray

SMALL_PRODUCTS = 1 << 20
"""Multiplications below which preparing digits costs more than it saves."""
SMALL_GROUP = 8
"""Channels a group of a convolution needs before unfolding it pays."""
FEW_COLUMNS = 16
"""Output pixels, or rows of a matrix, up to which a product is bound by reading its weights."""


def _by_bytes(weight: RingArray, columns_: int) -> bool:
    """32 bits only: 36 products of bytes are no faster than torch's 64-bit integers."""
    enough = weight.size * columns_ >= SMALL_PRODUCTS
    return weight.itemsize == 4 and enough and byte_product.is_exact()


def _tensor(array: RingArray) -> torch.Tensor:
    signed = np.dtype(f"<i{array.dtype.itemsize}")
    return torch.from_numpy(np.ascontiguousarray(array).view(signed))


def _array(tensor: torch.Tensor, like: RingArray) -> RingArray:
    return tensor.contiguous().numpy().view(like.dtype)


def conv2d(
    x: RingArray,
    weight: RingArray,
    shape: ConvolutionShape,
    *,
    device: Device = Device.CPU,
    prepared: PreparedWeights | None = None,
) -> RingArray:
    """x (N, C, H, W) * weight (O, C/groups, kh, kw) -> (N, O, H', W'), modulo 2^k."""
    if device is Device.CUDA:
        return limbs.conv2d(x, weight, shape, device="cuda")
    size = shape.output(weight.shape[2:], x.shape[2:])
    window = {"stride": shape.stride, "padding": shape.padding, "dilation": shape.dilation, "size": size}
    if shape.groups > 1 and weight.shape[1] < SMALL_GROUP:
        return columns.convolve_directly(x, weight, groups=shape.groups, **window)
    pixels = len(x) * size[0] * size[1]
    if pixels <= FEW_COLUMNS and shape.groups == 1:
        return columns.convolve_by_rows(x, weight, **window)
    if _by_bytes(weight, pixels):
        return byte_product.conv2d(x, weight, shape, prepared)
    return conv2d_plain(x, weight, shape)


def conv2d_plain(x: RingArray, weight: RingArray, shape: ConvolutionShape) -> RingArray:
    """`conv2d` in torch's integers."""
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
    (down, right), (rows, columns_) = dilation, weight.shape[2:]
    size = (*weight.shape[:2], down * (rows - 1) + 1, right * (columns_ - 1) + 1)
    spread = np.zeros(size, dtype=weight.dtype)
    spread[:, :, ::down, ::right] = weight
    return spread


def linear(
    x: RingArray,
    weight: RingArray,
    *,
    device: Device = Device.CPU,
    prepared: PreparedWeights | None = None,
) -> RingArray:
    """x (N, F) * weight (O, F) -> (N, O), modulo 2^k."""
    if device is Device.CUDA:
        return limbs.matmul(x, weight, device="cuda")
    if len(x) <= FEW_COLUMNS:
        return np.ascontiguousarray(columns.multiply_rows(weight, x).T)
    if _by_bytes(weight, len(x)):
        return byte_product.matmul(x, weight, prepared)
    return linear_plain(x, weight)


def linear_plain(x: RingArray, weight: RingArray) -> RingArray:
    """`linear` in torch's integers."""
    return _array(_tensor(x) @ _tensor(weight).T, x)
