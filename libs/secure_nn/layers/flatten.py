"""torch.nn.Flatten, flatten, view and reshape: other axes, the same values in the same order."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from libs.secure_nn.emitter import Emitter
from libs.secure_nn.graph import Node, Operation, ScaleRule
from libs.secure_nn.registry import Call, reads
from libs.secure_nn.steps import Flatten, Reshape
from libs.secure_nn.values import Shape


@dataclass(frozen=True)
class ChangeShape(Operation):
    """To `shape` (without the batch), C order."""

    shape: Shape

    scale_rule = ScaleRule.TIED

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The float reshape."""
        return inputs[0].reshape(-1, *self.shape)

    def emit(self, node: Node, emitter: Emitter) -> None:
        """Local, and nothing at all when the shape is the same."""
        x = emitter.either(node.inputs[0])
        if emitter.values[x].shape == self.shape:
            emitter.place(node, x)
        elif len(self.shape) == 1:
            emitter.define(
                node, Flatten(name=emitter.unique(node.name), inputs=(x,), output=emitter.next_value)
            )
        else:
            name = emitter.unique(node.name)
            emitter.define(node, Reshape(name=name, inputs=(x,), output=emitter.next_value, shape=self.shape))


@reads(
    nn.Flatten,
    torch.flatten,
    torch.reshape,
    torch.squeeze,
    torch.unsqueeze,
    "flatten",
    "view",
    "reshape",
    "squeeze",
    "unsqueeze",
    "contiguous",
)
def read_shape_change(call: Call) -> Operation:
    """Whatever the arguments, the shapes of an example say what was meant."""
    shape = tuple(call.result.shape[1:])
    call.require(
        len(shape) <= 3, f"a reshape to {shape}", way_round="Keep images (C, H, W) or flat features."
    )
    return ChangeShape(shape=shape)
