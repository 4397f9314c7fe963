"""The image: where every graph begins."""

from __future__ import annotations

import torch

from libs.secure_nn.emitter import Emitter
from libs.secure_nn.graph import Node, Operation, ScaleRule
from libs.secure_nn.steps import Input


class Image(Operation):
    """The masked input, dealt by the client."""

    scale_rule = ScaleRule.ACTIVATION

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The images as they are."""
        return inputs[0]

    def emit(self, node: Node, emitter: Emitter) -> None:
        """MASKED from the start."""
        channels, height, width = node.shape
        emitter.define(
            node,
            Input(
                name=emitter.unique(node.name),
                inputs=(),
                output=emitter.next_value,
                shape=(channels, height, width),
                scale=emitter.scales[node.name],
            ),
        )
