"""Addition and subtraction of two branches."""

from __future__ import annotations

import operator
from dataclasses import dataclass

import torch

from libs.secure_nn.emitter import Emitter
from libs.secure_nn.graph import Node, Operation, ScaleRule
from libs.secure_nn.registry import Call, reads
from libs.secure_nn.steps import Add, Subtract


@dataclass(frozen=True)
class Sum(Operation):
    """x + y or x - y, equal shapes."""

    negate: bool

    scale_rule = ScaleRule.TIED

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The float sum."""
        x, y = inputs
        return x - y if self.negate else x + y

    def emit(self, node: Node, emitter: Emitter) -> None:
        """Local, after the branches have got one scale."""
        x, y = emitter.aligned(node)
        step_type = Subtract if self.negate else Add
        emitter.define(
            node, step_type(name=emitter.unique(node.name), inputs=(x, y), output=emitter.next_value)
        )


@reads(operator.add, operator.iadd, torch.add, "add", "add_")
def read_add(call: Call) -> Operation:
    """A residual connection."""
    return _read(call, negate=False)


@reads(operator.sub, operator.isub, torch.sub, "sub", "sub_")
def read_subtract(call: Call) -> Operation:
    """A difference of branches."""
    return _read(call, negate=True)


def _read(call: Call, *, negate: bool) -> Operation:
    operands = call.args[:2]
    call.require(
        len(operands) == 2 and all(isinstance(x, torch.Tensor) for x in operands),
        "an addition of a constant",
        way_round="Put it into the bias of the layer before.",
    )
    call.require(
        operands[0].shape == operands[1].shape,
        f"an addition of shapes {tuple(operands[0].shape[1:])} and {tuple(operands[1].shape[1:])}",
        way_round="Bring both branches to one shape.",
    )
    call.require(
        call.option("alpha", position=2, default=1) == 1, "an addition with alpha", way_round="Use alpha=1."
    )
    return Sum(negate=negate)
