"""torch.nn.AvgPool2d: window sums, which are local; the division goes into the scale."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from libs.secure_nn.emitter import Emitter
from libs.secure_nn.graph import Node, Operation, ScaleRule
from libs.secure_nn.registry import Call, pair, reads
from libs.secure_nn.steps import SumPool2d
from libs.secure_nn.values import Shape


@dataclass(frozen=True)
class AvgPool(Operation):
    """Zero padding counts as pixels."""

    kernel: tuple[int, int]
    stride: tuple[int, int]
    padding: tuple[int, int]

    scale_rule = ScaleRule.TIED

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The float pool."""
        return nn.functional.avg_pool2d(inputs[0], self.kernel, self.stride, self.padding)

    def growth(self, shape: Shape) -> int:
        """A sum read as an average has a scale larger by the window's area."""
        return prod(self.kernel)

    def emit(self, node: Node, emitter: Emitter) -> None:
        """In whichever form the input has; pooled first, fewer values are opened."""
        step = SumPool2d(
            name=emitter.unique(node.name),
            inputs=(emitter.either(node.inputs[0]),),
            output=emitter.next_value,
            kernel=self.kernel,
            stride=self.stride,
            padding=self.padding,
        )
        emitter.define(node, step)


@reads(nn.AvgPool2d, nn.functional.avg_pool2d)
def read_avg_pool(call: Call) -> Operation:
    """Windows of equal weight."""
    kernel = pair(call.option("kernel_size", position=1, default=None))
    stride: Any = call.option("stride", position=2, default=None)
    padding = pair(call.option("padding", position=3, default=0))
    call.require(
        call.option("count_include_pad", position=5, default=True) or padding == (0, 0),
        "AvgPool2d with count_include_pad=False divides border windows by another area",
        way_round="Use count_include_pad=True or padding=0.",
    )
    call.require(
        call.option("divisor_override", position=6, default=None) in (None, prod(kernel)),
        "AvgPool2d with a divisor of its own",
        way_round="Leave out divisor_override.",
    )
    pool = AvgPool(kernel=kernel, stride=pair(stride) if stride else kernel, padding=padding)
    call.require(
        pool.forward(call.x).shape == call.result.shape,
        "AvgPool2d with ceil_mode has windows that reach beyond the border",
        way_round="Use ceil_mode=False.",
    )
    return pool
