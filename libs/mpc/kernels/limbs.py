"""Exact products modulo 2^k by float64, on any torch device: for GPUs, which multiply no matrix of integers.

A ring element is a sum of signed digits, x = sum x_i 2^(bi) with |x_i| <= 2^(b-1). Modulo 2^k only x_i w_j
with i + j < L = ceil(k/b) count, and those of one i + j = s are one matrix product, its inner dimension
(s+1) K: the weights' digits side by side in rising order times the columns' digits stacked in falling order,
a prefix of the one and a suffix of the other. float64 adds integers exactly, in any order, while every
partial sum stays below 2^53, and |sum| <= (s+1) K 4^(b-1): b follows from K, and a larger K is cut.

A convolution is such a product of unfolded columns. cuDNN's own float64 convolution is not used: it may
choose Winograd or Fourier algorithms, whose intermediate fractions are rounded.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from libs.core.errors import Bug
from libs.mpc.kernels.shapes import ConvolutionShape
from libs.mpc.ring import RingArray

DeviceName = Literal["cpu", "cuda"]
_EXACT = (1 << 53) - 1
_MIN_CHUNK = 1 << 14
"""A longer inner dimension is cut rather than split into smaller digits."""
_TILE_BYTES: dict[DeviceName, int] = {"cpu": 1 << 21, "cuda": 1 << 30}
"""Unfolded columns at a time: what a core's cache holds, what a GPU can spare."""


@dataclass(frozen=True)
class _Digits:
    """How to split elements of `ring_bits` bits; `chunk` is the largest inner dimension that stays exact."""

    bits: int
    count: int
    chunk: int
    ring_bits: int


def digits_for(inner: int, ring_bits: int) -> _Digits:
    """The fewest digits that leave room for a sum of `inner` products, or of 2^14 if that is less."""
    for count in range(2, ring_bits):
        bits = -(-ring_bits // count)
        chunk = _EXACT // (count << (2 * bits - 2))
        if chunk >= min(inner, _MIN_CHUNK):
            return _Digits(bits, count, chunk, ring_bits)
    raise Bug("No width of digits is exact.")


def _split(x: torch.Tensor, digits: _Digits) -> list[torch.Tensor]:
    """Signed digits, lowest first: adding half of each digit's range makes them plain bit fields."""
    bits, k = digits.bits, digits.ring_bits
    half = sum(1 << (bits * i + bits - 1) for i in range(digits.count)) % (1 << k)
    biased = x + (half - (1 << k) if half >> (k - 1) else half)
    parts = []
    for i in range(digits.count):
        width = min(bits, k - bits * i)
        # The highest digit may be narrower; it then counts modulo 2^width, so its bias does too.
        part = ((biased >> (bits * i)) & ((1 << width) - 1)) - (1 << (bits - 1)) % (1 << width)
        parts.append(part.to(torch.float64))
    return parts


def _product(w: torch.Tensor, columns: torch.Tensor, digits: _Digits) -> torch.Tensor:
    """w (O, L*K) [w_0 | w_1 ...] times columns (L*K, P) [x_L-1; ...; x_0], as int64."""
    inner = w.shape[1] // digits.count
    total = torch.zeros((len(w), columns.shape[1]), dtype=torch.int64, device=w.device)
    for s in range(digits.count - 1, -1, -1):
        part = w[:, : (s + 1) * inner] @ columns[(digits.count - 1 - s) * inner :]
        total = total.bitwise_left_shift_(digits.bits).add_(part.to(torch.int64))
    return total


def _to(array: RingArray, device: DeviceName) -> torch.Tensor:
    signed = np.dtype(f"<i{array.dtype.itemsize}")
    return torch.from_numpy(np.ascontiguousarray(array).view(signed)).to(device)


def _back(tensor: torch.Tensor, like: RingArray) -> RingArray:
    array: RingArray = tensor.contiguous().cpu().numpy().view(like.dtype)
    return array


def matmul(x: RingArray, weight: RingArray, *, device: DeviceName) -> RingArray:
    """x (N, F) times weight (O, F) transposed: (N, O)."""
    a, w = _to(x, device), _to(weight, device)
    inner = w.shape[1]
    digits = digits_for(inner, x.itemsize * 8)
    out = torch.zeros((len(w), len(a)), dtype=a.dtype, device=device)
    for start in range(0, inner, digits.chunk):
        cut = slice(start, start + digits.chunk)
        rows = torch.cat(_split(w[:, cut], digits), dim=1)
        columns = torch.cat([digit.T for digit in _split(a[:, cut], digits)[::-1]])
        out += _product(rows, columns, digits).to(a.dtype)
    return _back(out.T, x)


def conv2d(x: RingArray, weight: RingArray, shape: ConvolutionShape, *, device: DeviceName) -> RingArray:
    """x (N, C, H, W) * weight (O, C/groups, kh, kw) -> (N, O, H', W')."""
    a, w = _to(x, device), _to(weight, device)
    size = shape.output(w.shape[2:], a.shape[2:])
    out = torch.zeros((len(a), len(w), *size), dtype=a.dtype, device=device)
    inputs, outputs = w.shape[1], len(w) // shape.groups
    for g in range(shape.groups):
        mine = slice(g * outputs, (g + 1) * outputs)
        _convolve(a[:, g * inputs : (g + 1) * inputs], w[mine], shape, out[:, mine], device)
    return _back(out, x)


def _convolve(
    x: torch.Tensor, w: torch.Tensor, shape: ConvolutionShape, out: torch.Tensor, device: DeviceName
) -> None:
    taps = w.shape[2] * w.shape[3]
    digits = digits_for(x.shape[1] * taps, x.element_size() * 8)
    step = digits.chunk // taps
    if not step:
        raise Bug("A convolution's kernel has more taps than an exact sum has terms.")
    for first in range(0, x.shape[1], step):
        cut = slice(first, first + step)
        rows = torch.cat([digit.flatten(1) for digit in _split(w[:, cut], digits)], dim=1)
        for image, row, tile in _tiles(x[:, cut], w.shape, shape, out, digits, device):
            images, height = tile.shape[4:6]
            product = _product(rows, tile.reshape(rows.shape[1], -1), digits).to(x.dtype)
            # Added, not written: the channels may have been cut.
            out[image : image + images, :, row : row + height] += product.view(
                len(w), images, height, -1
            ).transpose(0, 1)


def _tiles(
    x: torch.Tensor,
    weight: torch.Size,
    shape: ConvolutionShape,
    out: torch.Tensor,
    digits: _Digits,
    device: DeviceName,
) -> Iterator[tuple[int, int, torch.Tensor]]:
    """(first image, first row, columns (L, C, kh, kw, images, rows, W')) of each tile of the output."""
    (top, left), (down, right) = shape.padding, weight[2:]
    planes = torch.stack(_split(torch.nn.functional.pad(x, (left, left, top, top)), digits)[::-1])
    height, width = out.shape[2:]
    digit, n, c, line, column = planes.stride()
    view = planes.as_strided(
        (digits.count, x.shape[1], down, right, len(x), height, width),
        (
            digit,
            c,
            line * shape.dilation[0],
            column * shape.dilation[1],
            n,
            line * shape.stride[0],
            column * shape.stride[1],
        ),
    )
    row_bytes = digits.count * x.shape[1] * down * right * width * planes.element_size()
    tile = max(1, _TILE_BYTES[device] // row_bytes)
    images, rows = max(1, tile // height), min(tile, height)
    for image in range(0, len(x), images):
        for row in range(0, height, rows):
            yield image, row, view[:, :, :, :, image : image + images, row : row + rows]
