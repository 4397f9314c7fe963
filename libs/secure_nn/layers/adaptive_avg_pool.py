"""torch.nn.AdaptiveAvgPool2d, and the mean over both image axes."""

from __future__ import annotations

from dataclasses import dataclass
from math import prod
from typing import Any

import torch
from torch import nn

from libs.secure_nn.emitter import Emitter
from libs.secure_nn.graph import Node, Operation, ScaleRule
from libs.secure_nn.registry import Call, reads
from libs.secure_nn.steps import AdaptiveSumPool2d, Flatten, SumPool2d
from libs.secure_nn.steps.local import MAX_WINDOWS
from libs.secure_nn.values import Shape


@dataclass(frozen=True)
class AdaptiveAvgPool(Operation):
    """Averages over PyTorch's windows, (C, H, W) -> (C, *output_size), flattened if `flat`."""

    output_size: tuple[int, int]
    flat: bool = False

    scale_rule = ScaleRule.TIED

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The float pool."""
        y = nn.functional.adaptive_avg_pool2d(inputs[0], self.output_size)
        return y.flatten(1) if self.flat else y

    def growth(self, shape: Shape) -> int:
        """A common multiple of the windows' areas."""
        return self._step().uniform_area(shape)

    def emit(self, node: Node, emitter: Emitter) -> None:
        """A plain sum pool where all windows are alike and apart; nothing where each is one pixel."""
        source = node.inputs[0]
        enlarges = prod(node.shape) > prod(emitter.graph.by_name[source].shape)
        # Opened before it grows: fewer values cross the link.
        x = emitter.masked(source) if enlarges else emitter.either(source)
        shape = emitter.values[x].shape
        kernel = [size // count for size, count in zip(shape[1:], self.output_size, strict=True)]
        name = emitter.unique(f"{node.name}.sums" if self.flat else node.name)
        if any(size % count for size, count in zip(shape[1:], self.output_size, strict=True)):
            x = emitter.append(self._step(name, x, emitter.next_value), bound=emitter.bounds[node.name])
        elif kernel != [1, 1]:
            window = (kernel[0], kernel[1])
            step = SumPool2d(
                name=name,
                inputs=(x,),
                output=emitter.next_value,
                kernel=window,
                stride=window,
                padding=(0, 0),
            )
            x = emitter.append(step, bound=emitter.bounds[node.name])
        if self.flat:
            flatten = Flatten(name=emitter.unique(node.name), inputs=(x,), output=emitter.next_value)
            x = emitter.append(flatten, bound=emitter.bounds[node.name])
        emitter.place(node, x)

    def _step(self, name: str = "", x: int = 0, output: int = 0) -> AdaptiveSumPool2d:
        return AdaptiveSumPool2d(name=name, inputs=(x,), output=output, output_size=self.output_size)


@reads(nn.AdaptiveAvgPool2d, nn.functional.adaptive_avg_pool2d)
def read_adaptive_avg_pool(call: Call) -> Operation:
    """Sizes that are left out mean the input's own."""
    rows, columns = call.result.shape[2:]
    call.require(
        max(rows, columns) <= MAX_WINDOWS,
        f"AdaptiveAvgPool2d to more than {MAX_WINDOWS} windows",
        way_round="Use a smaller output size.",
    )
    return AdaptiveAvgPool(output_size=(rows, columns))


@reads(torch.mean, "mean")
def read_mean(call: Call) -> Operation:
    """x.mean((2, 3)): global average pooling under another name."""
    axes: Any = call.option("dim", position=1, default=None)
    chosen = {axis % call.x.ndim for axis in ([axes] if isinstance(axes, int) else axes or ())}
    call.require(
        call.x.ndim == 4 and chosen == {2, 3},
        "a mean over other axes than both image axes",
        way_round="Use x.mean((2, 3)) or AdaptiveAvgPool2d(1).",
    )
    return AdaptiveAvgPool(output_size=(1, 1), flat=call.result.ndim == 2)
