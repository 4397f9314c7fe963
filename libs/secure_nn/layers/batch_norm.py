"""torch.nn.BatchNorm2d and BatchNorm1d: a fixed gain and offset per channel in evaluation mode."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from libs.secure_nn.emitter import Emitter
from libs.secure_nn.graph import Node, Operation
from libs.secure_nn.layers.conv2d import Convolution
from libs.secure_nn.layers.weighted import as_double
from libs.secure_nn.registry import Call, reads
from libs.secure_nn.steps import Flatten, Reshape


@dataclass(frozen=True, eq=False)
class Affine(Convolution):
    """gain * x + offset per channel, as a depthwise 1x1 convolution.

    `libs/secure_nn/rewrite.py` folds it into the layer before it wherever it can; only what is left,
    such as a BatchNorm behind an addition, is computed. Weight (C, 1, 1, 1), bias (C,), groups C.
    """

    @property
    def gain(self) -> torch.Tensor:
        """(C,)."""
        return self.weight.reshape(-1)

    @property
    def offset(self) -> torch.Tensor:
        """(C,)."""
        assert self.bias is not None  # set by the reader
        return self.bias

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """On (B, C, H, W) or (B, F)."""
        (x,) = inputs
        shape = (-1, *[1] * (x.ndim - 2))
        return x * self.gain.to(x).reshape(shape) + self.offset.to(x).reshape(shape)

    def emit(self, node: Node, emitter: Emitter) -> None:
        """Flat features pass as channels of one pixel."""
        x = emitter.activation(node.inputs[0])
        if len(node.shape) == 3:
            self.emit_on(x, node, emitter)
            return
        name, bound = node.name, emitter.values[x].bound
        pixels = Reshape(
            name=emitter.unique(f"{name}.pixels"),
            inputs=(x,),
            output=emitter.next_value,
            shape=(node.shape[0], 1, 1),
        )
        y = self.emit_on(emitter.append(pixels, bound=bound), node, emitter)
        flat = Flatten(name=emitter.unique(f"{name}.flat"), inputs=(y,), output=emitter.next_value)
        emitter.define(node, flat)


@reads(nn.BatchNorm2d, nn.BatchNorm1d)
def read_batch_norm(call: Call) -> Operation:
    """With the statistics gathered in training."""
    module = call.module
    assert isinstance(module, (nn.BatchNorm2d, nn.BatchNorm1d))
    call.require(
        module.running_mean is not None and module.running_var is not None,
        "BatchNorm without running statistics depends on the batch",
        way_round="Use track_running_stats=True.",
    )
    call.require(
        call.x.ndim in (2, 4), "BatchNorm1d on sequences", way_round="Use it on (B, F) or BatchNorm2d."
    )
    mean, variance = as_double(module.running_mean), as_double(module.running_var)  # type: ignore[arg-type]
    gain = 1 / torch.sqrt(variance + module.eps)
    if module.affine:
        gain = gain * as_double(module.weight)
    offset = -mean * gain + (as_double(module.bias) if module.affine else 0.0)
    return Affine(weight=gain.reshape(-1, 1, 1, 1), bias=offset, groups=gain.numel())
