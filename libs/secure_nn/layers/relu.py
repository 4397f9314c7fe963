"""torch.nn.ReLU, and the functions and methods of that name."""

from __future__ import annotations

import torch
from torch import nn

from libs.secure_nn.emitter import Emitter
from libs.secure_nn.graph import Node, Operation, ScaleRule
from libs.secure_nn.registry import Call, reads


class Rectifier(Operation):
    """max(x, 0), with the accumulator's scale brought down to an activation's for free."""

    scale_rule = ScaleRule.ACTIVATION
    needs_open = True

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Not in place: the input may be a skip connection."""
        return torch.relu(inputs[0])

    def emit(self, node: Node, emitter: Emitter) -> None:
        """MASKED -> SHARED."""
        source = node.inputs[0]
        x = emitter.masked(source)
        ratio = emitter.ratio(x, emitter.scales[node.name])
        step = emitter.relu_step(emitter.unique(node.name), x, ratio=ratio, bound=emitter.values[x].bound)
        emitter.define(node, step)


@reads(
    nn.ReLU,
    nn.functional.relu,
    torch.relu,
    torch.relu_,
    "relu",
    "relu_",
)
def read_relu(call: Call) -> Operation:
    """No options that matter."""
    return Rectifier()
