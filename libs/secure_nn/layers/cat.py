"""torch.cat along the channels, or along flat features."""

from __future__ import annotations

from dataclasses import dataclass

import torch

from libs.secure_nn.emitter import Emitter
from libs.secure_nn.graph import Node, Operation, ScaleRule
from libs.secure_nn.registry import Call, reads
from libs.secure_nn.steps import Concatenate


@dataclass(frozen=True)
class Concatenation(Operation):
    """Joins branches along `axis`, counted without the batch."""

    axis: int

    scale_rule = ScaleRule.TIED

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The float concatenation."""
        return torch.cat(inputs, dim=self.axis + 1)

    def emit(self, node: Node, emitter: Emitter) -> None:
        """Local, after the branches have got one scale."""
        branches = emitter.aligned(node, reopens=False)
        if len(branches) == 1:
            emitter.place(node, branches[0])
            return
        step = Concatenate(
            name=emitter.unique(node.name), inputs=branches, output=emitter.next_value, axis=self.axis
        )
        emitter.define(node, step)


@reads(torch.cat, torch.concat, torch.concatenate)
def read_cat(call: Call) -> Operation:
    """Never along the batch."""
    axis = call.option("dim", position=1, default=0) % call.result.ndim
    call.require(
        axis > 0, "a concatenation along the batch", way_round="Concatenate along dim=1, the channels."
    )
    return Concatenation(axis=axis - 1)
