"""Ring products on a CPU from products of signed bytes, exact by construction.

Modulo 2^k only the products x_i w_j of digits with i + j < L = k/8 count. Those of one i + j = s are
one matrix product of inner dimension (s+1) K: the weights' digits side by side in rising order, the columns'
digits stacked in falling order, a prefix of the one times a suffix of the other. No int32 accumulator can
overflow: (s+1) K 2^14 < 2^31, larger K are cut. The dot-product instructions of processors since 2019 (VNNI)
multiply bytes 25 times as fast as int32, so ten such products beat one. The 64-bit ring takes 36, which is
right but no faster than int64: `linear.py` does not choose it.
"""

from __future__ import annotations

import functools
from collections.abc import Iterator

import numpy as np
import torch

from libs.mpc.kernels import columns
from libs.mpc.kernels.columns import I8, I32
from libs.mpc.kernels.shapes import ConvolutionShape
from libs.mpc.ring import Ring, RingArray

_TILE_BYTES = 1 << 23
"""Unfolded columns at a time. Smaller tiles are slower: the four calls block for the caches themselves."""


class PreparedWeights:
    """The digits of weights that are multiplied again and again, made at their first use.

    Belongs to whoever owns the weights: they are known by their place in memory, and must outlive this.
    """

    __slots__ = ("_rows",)

    def __init__(self) -> None:
        self._rows: dict[tuple[int, tuple[int, ...], tuple[int, ...]], I8] = {}

    def rows(self, weight: RingArray) -> I8:
        """(O, L*K) for a weight (O, ...)."""
        key = (weight.ctypes.data, weight.shape, weight.strides)
        if key not in self._rows:
            self._rows[key] = columns.split_rows(np.ascontiguousarray(weight).reshape(len(weight), -1))
        return self._rows[key]

    def __repr__(self) -> str:
        return "PreparedWeights(<redacted>)"


def _largest_inner(ring: Ring) -> int:
    return ((1 << 31) - 1) // (ring.element_bytes << 14)


def _parts(weights: I8, unfolded: I8, digits: int) -> I32:
    """The L products (L, O, P) of weights (O, L*K) and columns (L*K, P)."""
    left, right = torch.from_numpy(weights), torch.from_numpy(unfolded)
    inner = weights.shape[1] // digits
    parts = torch.empty((digits, len(weights), unfolded.shape[1]), dtype=torch.int32)
    for s in range(digits):
        torch._int_mm(left[:, : (s + 1) * inner], right[(digits - 1 - s) * inner :], out=parts[s])
    array: I32 = parts.numpy()
    return array


def matmul(x: RingArray, weight: RingArray, prepared: PreparedWeights | None = None) -> RingArray:
    """x (N, F) times weight (O, F) transposed: (N, O)."""
    prepared = prepared or PreparedWeights()
    ring, inner = Ring.of(x), weight.shape[1]
    out = ring.zeros((1, len(weight), 1, len(x)))
    step = _largest_inner(ring)
    for start in range(0, inner, step):
        rows = prepared.rows(weight[:, start : start + step])
        planes = columns.split_images(np.ascontiguousarray(x[:, start : start + step].T)[None, None], (0, 0))
        parts = _parts(rows, planes.reshape(-1, len(x)), ring.element_bytes)
        columns.gather(parts, out, image=0, row=0, rows=1, add=True)
    return np.ascontiguousarray(out[0, :, 0].T)


def conv2d(
    x: RingArray, weight: RingArray, shape: ConvolutionShape, prepared: PreparedWeights | None = None
) -> RingArray:
    """x (N, C, H, W) * weight (O, C/groups, kh, kw) -> (N, O, H', W')."""
    prepared = prepared or PreparedWeights()
    size = shape.output(weight.shape[2:], x.shape[2:])
    out = np.empty((len(x), len(weight), *size), dtype=x.dtype)
    inputs, outputs = weight.shape[1], len(weight) // shape.groups
    for g in range(shape.groups):
        mine = slice(g * outputs, (g + 1) * outputs)
        _convolve(x[:, g * inputs : (g + 1) * inputs], weight[mine], shape, prepared, out[:, mine])
    return out


def _convolve(
    x: RingArray, weight: RingArray, shape: ConvolutionShape, prepared: PreparedWeights, out: RingArray
) -> None:
    ring, taps = Ring.of(x), weight.shape[2] * weight.shape[3]
    step = _largest_inner(ring) // taps
    for first in range(0, x.shape[1], step):
        cut = slice(first, first + step)
        rows = prepared.rows(weight[:, cut])
        planes = columns.split_images(np.ascontiguousarray(x[:, cut]), shape.padding)
        for image, row, height, unfolded in _tiles(planes, shape, weight.shape[2:], out):
            parts = _parts(rows, unfolded, ring.element_bytes)
            columns.gather(parts, out, image=image, row=row, rows=height, add=first > 0)


def _tiles(
    planes: I8, shape: ConvolutionShape, kernel: tuple[int, ...], out: RingArray
) -> Iterator[tuple[int, int, int, I8]]:
    """(first image, first row, rows, columns) of each tile of the output."""
    images, _, height, width = out.shape
    pointwise = tuple(kernel) == shape.stride == (1, 1) and shape.padding == (0, 0)
    if pointwise and images == 1:
        # The digits are the columns already.
        yield 0, 0, height, planes.reshape(-1, height * width)
        return
    view = columns.windows(
        planes, kernel=kernel, stride=shape.stride, dilation=shape.dilation, size=(height, width)
    )
    inner = planes.shape[0] * planes.shape[2] * kernel[0] * kernel[1]
    tile = max(1, _TILE_BYTES // (inner * width))
    count, rows = max(1, tile // height), min(tile, height)
    for image in range(0, images, count):
        for row in range(0, height, rows):
            chosen = view[:, :, :, :, image : image + count, row : row + rows]
            # A reshaped view may have strides, even overlapping ones, that oneDNN does not take.
            yield image, row, chosen.shape[5], np.ascontiguousarray(chosen.reshape(inner, -1))


@functools.cache
def is_exact() -> bool:
    """True where this processor's byte products are fast and right. Without the dot-product instructions they
    are slow or go through saturating 16-bit sums, which the extreme digits of this trial would show."""
    if not torch.cpu._is_vnni_supported():
        return False
    extremes = [torch.full((64, 4096), value, dtype=torch.int8) for value in (-128, 127)]
    return all(
        bool((torch._int_mm(a, b.T.contiguous()) == int(a[0, 0]) * int(b[0, 0]) * 4096).all())
        for a in extremes
        for b in extremes
    )
