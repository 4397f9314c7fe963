"""What convolutions and linear layers have in common: weights, and a scale chosen through them."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass, replace
from typing import Self

import torch

from libs.secure_nn.emitter import Emitter
from libs.secure_nn.graph import Node, Operation, ScaleRule
from libs.secure_nn.steps import WeightedStep


@dataclass(frozen=True, eq=False)
class Weighted(Operation):
    """A layer with a weight (outputs first) and maybe a bias, both float64."""

    weight: torch.Tensor
    bias: torch.Tensor | None

    scale_rule = ScaleRule.ACCUMULATOR
    needs_open = True

    def tensors(self) -> dict[str, torch.Tensor]:
        """By role."""
        return {"weight": self.weight} if self.bias is None else {"weight": self.weight, "bias": self.bias}

    @property
    def fan_in(self) -> int:
        """Products in one output value."""
        return self.weight[0].numel()

    def with_affine(self, gain: torch.Tensor, offset: torch.Tensor) -> Self:
        """The same layer followed by gain * y + offset per output, as BatchNorm is; both (O,)."""
        weight = self.weight * gain.reshape(-1, *[1] * (self.weight.ndim - 1))
        bias = offset if self.bias is None else self.bias * gain + offset
        return replace(self, weight=weight, bias=bias)

    @abstractmethod
    def step(self, name: str, x: int, output: int, weight: int, bias: int | None) -> WeightedStep:
        """The step on value `x` with these parameters."""

    def emit(self, node: Node, emitter: Emitter) -> None:
        """MASKED -> SHARED at the accumulator's scale."""
        x = emitter.activation(node.inputs[0])
        self.emit_on(x, node, emitter)

    def emit_on(self, x: int, node: Node, emitter: Emitter) -> int:
        """The step on value `x`; its number."""
        weight, bias = emitter.place_parameters(node, x, fan_in=self.fan_in)
        return emitter.define(node, self.step(emitter.unique(node.name), x, emitter.next_value, weight, bias))


def as_double(tensor: torch.Tensor) -> torch.Tensor:
    """A weight for folding: in float32 the fold itself would cost digits."""
    return tensor.detach().to("cpu", torch.float64)
