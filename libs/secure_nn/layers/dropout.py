"""Layers that do nothing in evaluation mode."""

from __future__ import annotations

import torch
from torch import nn

from libs.secure_nn.emitter import Emitter
from libs.secure_nn.graph import Node, Operation, ScaleRule
from libs.secure_nn.registry import Call, reads


class Nothing(Operation):
    """Its input. `libs/secure_nn/rewrite.py` removes it unless it is all there is."""

    scale_rule = ScaleRule.TIED

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Unchanged."""
        return inputs[0]

    def emit(self, node: Node, emitter: Emitter) -> None:
        """No step."""
        emitter.place(node, emitter.either(node.inputs[0]))


@reads(nn.Dropout, nn.Dropout2d, nn.Identity, nn.functional.dropout, nn.functional.dropout2d, torch.dropout)
def read_nothing(call: Call) -> Operation:
    """Only where it really is inactive: F.dropout is active unless it is told otherwise."""
    call.require(
        call.module is not None or not call.option("training", position=2, default=True),
        "a dropout that is always active",
        way_round="Pass training=self.training, or use nn.Dropout.",
    )
    return Nothing()
