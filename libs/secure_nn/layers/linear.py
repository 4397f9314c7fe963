"""torch.nn.Linear."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from libs.secure_nn.graph import Operation
from libs.secure_nn.layers.weighted import Weighted, as_double
from libs.secure_nn.registry import Call, reads
from libs.secure_nn.steps import Linear, WeightedStep


@dataclass(frozen=True, eq=False)
class FullyConnected(Weighted):
    """x W^T + bias on (B, F); weight (O, F)."""

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The float product."""
        (x,) = inputs
        return nn.functional.linear(x, self.weight.to(x), None if self.bias is None else self.bias.to(x))

    def step(self, name: str, x: int, output: int, weight: int, bias: int | None) -> WeightedStep:
        """One ring product per evaluator."""
        return Linear(name=name, inputs=(x,), output=output, weight=weight, bias=bias)


@reads(nn.Linear)
def read_linear(call: Call) -> Operation:
    """On flat features only."""
    module = call.module
    assert isinstance(module, nn.Linear)
    call.require(
        call.x.ndim == 2,
        f"Linear on an input with {call.x.ndim} axes",
        way_round="Flatten before it, or use a 1x1 Conv2d.",
    )
    return FullyConnected(
        weight=as_double(module.weight), bias=None if module.bias is None else as_double(module.bias)
    )
