"""torch.nn.MaxPool2d, as comparisons: max(a, b) = b + relu(a - b)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from libs.secure_nn.emitter import Emitter
from libs.secure_nn.graph import Node, Operation, ScaleRule
from libs.secure_nn.registry import Call, pair, reads
from libs.secure_nn.steps import Add, Concatenate, Pad2d, Slice, StridedSlice2d, Subtract
from libs.secure_nn.values import Shape, ValueSpec

ROWS, COLUMNS = 1, 2


@dataclass(frozen=True)
class MaxPool(Operation):
    """Rows first, then columns: (kh - 1) + (kw - 1) comparisons per value instead of kh * kw - 1.

    Three rounds per stage (sign: two, opening: one) and ceil(log2(kh)) + ceil(log2(kw)) stages; the
    differences of opened values are open already, so comparing starts without a round.
    """

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]
    dilation: tuple[int, int]
    ceil_mode: bool = False

    scale_rule = ScaleRule.TIED
    needs_open = True
    headroom = 1  # |a - b| < 2^(bound + 1)

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The float pool."""
        return nn.functional.max_pool2d(
            inputs[0], self.kernel, self.stride, self.padding, self.dilation, self.ceil_mode
        )

    def emit(self, node: Node, emitter: Emitter) -> None:
        """MASKED -> MASKED."""
        name = node.name
        x = emitter.with_room(emitter.masked(node.inputs[0]), name, bits=self.headroom)
        beyond = self.beyond(emitter.values[x].shape, node.shape)
        if any(self.padding) or any(beyond):
            x = self._pad(x, beyond, name, emitter)
        for axis, label in ((ROWS, "rows"), (COLUMNS, "columns")):
            x = self._along(x, axis, f"{name}.{label}", emitter)
        emitter.place(node, x)

    def beyond(self, shape: Shape, pooled: Shape) -> tuple[int, int]:
        """Rows and columns by which the last windows reach over the padded image (ceil_mode)."""
        rows, columns = (
            max(0, (count - 1) * stride + dilation * (kernel - 1) + 1 - size - 2 * padding)
            for size, count, kernel, stride, padding, dilation in zip(
                shape[1:], pooled[1:], self.kernel, self.stride, self.padding, self.dilation, strict=True
            )
        )
        return rows, columns

    def _pad(self, x: int, beyond: tuple[int, int], name: str, emitter: Emitter) -> int:
        """A border of the smallest value that the bound allows: it never wins against a pixel."""
        spec = emitter.values[x]
        (top, left), smallest = self.padding, -_floor_bound(spec)
        return emitter.append(
            Pad2d(
                name=emitter.unique(f"{name}.pad"),
                inputs=(x,),
                output=emitter.next_value,
                left=left,
                right=left + beyond[1],
                top=top,
                bottom=top + beyond[0],
                value=smallest,
            ),
            bound=spec.bound,
        )

    def _along(self, x: int, axis: int, name: str, emitter: Emitter) -> int:
        """Maximum over windows of one axis, as a tree: all pairs of a level are compared in one stage."""
        kernel, stride, dilation = (option[axis - 1] for option in (self.kernel, self.stride, self.dilation))
        length = emitter.values[x].shape[axis]
        count = (length - dilation * (kernel - 1) - 1) // stride + 1
        if kernel == 1 and stride == 1:
            return x
        candidates = [
            _slice(x, axis, (start, start + stride * (count - 1) + 1, stride), f"{name}.slice", emitter)
            for start in range(0, kernel * dilation, dilation)
        ]
        while len(candidates) > 1:
            pairs = len(candidates) // 2
            left, right = candidates[:pairs], candidates[pairs : 2 * pairs]
            larger = _larger(
                _join(left, axis, name, emitter), _join(right, axis, name, emitter), name, emitter
            )
            candidates = [*_split(larger, pairs, axis, name, emitter), *candidates[2 * pairs :]]
        return candidates[0]


def _larger(a: int, b: int, name: str, emitter: Emitter) -> int:
    """max(a, b) of two MASKED values, MASKED again: three rounds."""
    bound = emitter.values[a].bound
    difference = emitter.append(
        Subtract(name=emitter.unique(f"{name}.difference"), inputs=(a, b), output=emitter.next_value),
        bound=bound + 1,
    )
    gain = emitter.append(
        emitter.relu_step(emitter.unique(f"{name}.relu"), difference, ratio=None, bound=bound + 1),
        bound=bound + 1,
    )
    base = emitter.to_shared(b, name)
    larger = emitter.append(
        Add(name=emitter.unique(f"{name}.larger"), inputs=(gain, base), output=emitter.next_value),
        bound=bound,
    )
    return emitter.open(larger, name)


def _join(parts: list[int], axis: int, name: str, emitter: Emitter) -> int:
    if len(parts) == 1:
        return parts[0]
    step = Concatenate(
        name=emitter.unique(f"{name}.join"), inputs=tuple(parts), output=emitter.next_value, axis=axis
    )
    return emitter.append(step, bound=emitter.values[parts[0]].bound)


def _split(x: int, parts: int, axis: int, name: str, emitter: Emitter) -> list[int]:
    if parts == 1:
        return [x]
    size = emitter.values[x].shape[axis] // parts
    return [_slice(x, axis, (i * size, (i + 1) * size, 1), f"{name}.part", emitter) for i in range(parts)]


def _slice(x: int, axis: int, cut: Slice, name: str, emitter: Emitter) -> int:
    spec = emitter.values[x]
    rows, columns = ((0, size, 1) for size in spec.shape[1:])
    step = StridedSlice2d(
        name=emitter.unique(name),
        inputs=(x,),
        output=emitter.next_value,
        rows=cut if axis == ROWS else rows,
        columns=cut if axis == COLUMNS else columns,
    )
    return emitter.append(step, bound=spec.bound)


def _floor_bound(spec: ValueSpec) -> int:
    return int(spec.scale * 2**spec.bound) if spec.bound >= 0 else int(spec.scale / 2**-spec.bound)


@reads(nn.MaxPool2d, nn.functional.max_pool2d, torch.max_pool2d)
def read_max_pool(call: Call) -> Operation:
    """Values only, no indices."""
    kernel = pair(call.option("kernel_size", position=1, default=None))
    stride: Any = call.option("stride", position=2, default=None)
    call.require(
        not call.option("return_indices", position=6, default=False),
        "MaxPool2d returns indices",
        way_round="Use return_indices=False.",
    )
    padding = pair(call.option("padding", position=3, default=0))
    pool = MaxPool(
        kernel=kernel,
        stride=pair(stride) if stride else kernel,
        padding=padding,
        dilation=pair(call.option("dilation", position=4, default=1)),
        ceil_mode=bool(call.option("ceil_mode", position=5, default=False)),
    )
    shape = tuple(call.x.shape[1:])
    beyond = pool.beyond(shape, tuple(call.result.shape[1:]))
    call.require(
        all(pad + more <= size for pad, more, size in zip(padding, beyond, shape[1:], strict=True)),
        "MaxPool2d with ceil_mode has windows that hardly touch the image",
        way_round="Use ceil_mode=False or a smaller kernel.",
    )
    return pool
