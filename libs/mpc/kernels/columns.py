"""Ring elements cut into signed bytes and laid out as matrix factors; small convolutions done directly.

x = sum x_i 256^i with x_i in [-128, 127]: adding 0x80..80 and flipping those bits again leaves the digits as
bytes, for 0x80..80 = sum 128 * 256^i. Compiled loops as in `fused.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from numba import njit

from libs.mpc.ring import Ring, RingArray

I8 = npt.NDArray[np.int8]
I32 = npt.NDArray[np.int32]
Pair = tuple[int, int]
_compiled = njit(cache=True, nogil=True, boundscheck=False, error_model="numpy")


@_compiled
def _split_rows(matrix, bias, out):  # type: ignore[no-untyped-def]
    rows, inner = matrix.shape
    kind = matrix.dtype.type
    for o in range(rows):
        source = matrix[o]
        for digit in range(matrix.itemsize):
            target, shift = out[o, digit * inner : (digit + 1) * inner], kind(8 * digit)
            for k in range(inner):
                target[k] = np.int8(np.uint8(((source[k] + bias) ^ bias) >> shift))


@_compiled
def _split_images(x, bias, top, left, out):  # type: ignore[no-untyped-def]
    kind, digits = x.dtype.type, x.itemsize
    for n in range(x.shape[0]):
        for c in range(x.shape[1]):
            for r in range(x.shape[2]):
                source = x[n, c, r]
                for digit in range(digits):
                    target = out[digits - 1 - digit, n, c, r + top, left : left + source.size]
                    shift = kind(8 * digit)
                    for i in range(source.size):
                        target[i] = np.int8(np.uint8(((source[i] + bias) ^ bias) >> shift))


@_compiled
def _gather(parts, add, image, row, rows, out):  # type: ignore[no-untyped-def]
    kind, width = out.dtype.type, out.shape[3]
    length = parts.shape[2]
    sums = np.empty(length, dtype=out.dtype)
    for o in range(parts.shape[1]):
        sums[:] = 0
        for s in range(parts.shape[0] - 1, -1, -1):
            part = parts[s, o]
            for v in range(length):
                sums[v] = (sums[v] << kind(8)) + kind(part[v])
        for block in range(length // width):
            target = out[image + block // rows, o, row + block % rows]
            source = sums[block * width : (block + 1) * width]
            if add:
                for v in range(width):
                    target[v] += source[v]
            else:
                for v in range(width):
                    target[v] = source[v]


@_compiled
def _direct(x, weight, stride, dilation, groups, out):  # type: ignore[no-untyped-def]
    per_group, outputs = weight.shape[1], weight.shape[0] // groups
    for n in range(out.shape[0]):
        for o in range(out.shape[1]):
            first = o // outputs * per_group
            for r in range(out.shape[2]):
                target = out[n, o, r]
                target[:] = 0
                for c in range(per_group):
                    for i in range(weight.shape[2]):
                        line = x[n, first + c, r * stride[0] + i * dilation[0]]
                        for j in range(weight.shape[3]):
                            factor, source = weight[o, c, i, j], line[j * dilation[1] :]
                            if stride[1] == 1:
                                for v in range(target.size):
                                    target[v] += factor * source[v]
                            else:
                                for v in range(target.size):
                                    target[v] += factor * source[v * stride[1]]


@_compiled
def _dots(weight, rows, out):  # type: ignore[no-untyped-def]
    for o in range(weight.shape[0]):
        line = weight[o]
        for p in range(rows.shape[0]):
            other, total = rows[p], line.dtype.type(0)
            for k in range(line.size):
                total += line.dtype.type(line[k] * other[k])
            out[o, p] = total


def _bias(ring: Ring) -> Any:
    return ring.constant(int.from_bytes(b"\x80" * ring.element_bytes, "little"))


def split_rows(matrix: RingArray) -> I8:
    """(O, K) -> (O, L*K): the digits side by side, lowest first."""
    ring = Ring.of(matrix)
    out = np.empty((matrix.shape[0], matrix.shape[1] * ring.element_bytes), dtype=np.int8)
    _split_rows(matrix, _bias(ring), out)
    return out


def split_images(x: RingArray, padding: Pair) -> I8:
    """(N, C, H, W) -> (L, N, C, H + 2 top, W + 2 left): the digits with a border of zeros, highest first."""
    ring, (top, left) = Ring.of(x), padding
    n, channels, height, width = x.shape
    size = (ring.element_bytes, n, channels, height + 2 * top, width + 2 * left)
    out: I8 = np.zeros(size, np.int8) if top or left else np.empty(size, np.int8)
    _split_images(x, _bias(ring), top, left, out)
    return out


def multiply_rows(weight: RingArray, rows: RingArray) -> RingArray:
    """weight (O, K) times rows (P, K) transposed: (O, P). For a few rows: each weight is read once."""
    out = np.empty((len(weight), len(rows)), dtype=weight.dtype)
    _dots(np.ascontiguousarray(weight), np.ascontiguousarray(rows), out)
    return out


def convolve_by_rows(
    x: RingArray, weight: RingArray, *, stride: Pair, padding: Pair, dilation: Pair, size: Pair
) -> RingArray:
    """A convolution without groups as dot products: for outputs of a few pixels."""
    (top, left) = padding
    planes = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))[None]
    view = windows(planes, kernel=weight.shape[2:], stride=stride, dilation=dilation, size=size)
    rows = view[0].transpose(3, 4, 5, 0, 1, 2).reshape(len(x) * size[0] * size[1], -1)
    product = multiply_rows(weight.reshape(len(weight), -1), rows)
    return np.ascontiguousarray(product.reshape(len(weight), len(x), *size).swapaxes(0, 1))


def windows(
    planes: npt.NDArray[Any], *, kernel: Sequence[int], stride: Pair, dilation: Pair, size: Pair
) -> npt.NDArray[Any]:
    """A view (L, C, kh, kw, N, H', W') of digits or elements: a tile of it, copied, is a tile of columns."""
    digit, n, c, row, column = planes.strides
    shape = (planes.shape[0], planes.shape[2], *kernel, planes.shape[1], *size)
    taps = (row * dilation[0], column * dilation[1])
    strides = (digit, c, *taps, n, row * stride[0], column * stride[1])
    return np.lib.stride_tricks.as_strided(planes, shape, strides)


def gather(parts: I32, out: RingArray, *, image: int, row: int, rows: int, add: bool) -> None:
    """Write sum_s parts[s] 256^s (L, O, outputs) to `out` (N, O, H', W'), or add it to what is there."""
    _gather(parts, add, image, row, rows, out)


def convolve_directly(
    x: RingArray, weight: RingArray, *, stride: Pair, padding: Pair, dilation: Pair, groups: int, size: Pair
) -> RingArray:
    """Tap by tap along rows: for groups so small that unfolding would cost more than multiplying."""
    (top, left) = padding
    if top or left:
        x = np.pad(x, ((0, 0), (0, 0), (top, top), (left, left)))
    out = np.empty((len(x), weight.shape[0], *size), dtype=x.dtype)
    _direct(np.ascontiguousarray(x), np.ascontiguousarray(weight), stride, dilation, groups, out)
    return out


def warm_up() -> None:
    """Compile for both rings."""
    one = (1, 1)
    for ring in Ring:
        x = ring.zeros((1, 1, 3, 3))
        split_rows(x[0, 0])
        split_images(x, one)
        gather(np.zeros((1, 1, 9), np.int32), x, image=0, row=0, rows=3, add=True)
        multiply_rows(x[0, 0], x[0, 0])
        convolve_directly(x, x, stride=one, padding=one, dilation=one, groups=1, size=(3, 3))
