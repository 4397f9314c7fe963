"""A sum of products brought down to an activation, once, where several layers will multiply it."""

from __future__ import annotations

import torch

from libs.secure_nn.emitter import Emitter
from libs.secure_nn.graph import Node, Operation, ScaleRule


class Narrow(Operation):
    """Its input, rounded. No module of its own: `rewrite.py` puts it in front of concatenations."""

    scale_rule = ScaleRule.ACTIVATION
    needs_open = True

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """Unchanged."""
        return inputs[0]

    def emit(self, node: Node, emitter: Emitter) -> None:
        """MASKED -> SHARED, no round."""
        x = emitter.masked(node.inputs[0])
        multiplier, shift = emitter.ratio(x, emitter.scales[node.name])
        emitter.place(node, emitter.rescaled(x, node.name, multiplier=multiplier, shift=shift))
