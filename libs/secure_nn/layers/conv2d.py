"""torch.nn.Conv2d."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import nn

from libs.secure_nn.graph import Operation
from libs.secure_nn.layers.weighted import Weighted, as_double
from libs.secure_nn.registry import Call, pair, reads
from libs.secure_nn.steps import Conv2d, WeightedStep


@dataclass(frozen=True, eq=False)
class Convolution(Weighted):
    """Stride, padding, dilation and groups as in torch; weight (O, C/groups, kh, kw)."""

    stride: tuple[int, int] = (1, 1)
    padding: tuple[int, int] = (0, 0)
    dilation: tuple[int, int] = (1, 1)
    groups: int = 1

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The float convolution."""
        (x,) = inputs
        bias = None if self.bias is None else self.bias.to(x)
        return nn.functional.conv2d(
            x, self.weight.to(x), bias, self.stride, self.padding, self.dilation, self.groups
        )

    def step(self, name: str, x: int, output: int, weight: int, bias: int | None) -> WeightedStep:
        """One ring convolution per evaluator."""
        return Conv2d(
            name=name,
            inputs=(x,),
            output=output,
            weight=weight,
            bias=bias,
            stride=self.stride,
            padding=self.padding,
            dilation=self.dilation,
            groups=self.groups,
        )


@reads(nn.Conv2d)
def read_conv2d(call: Call) -> Operation:
    """Zero padding only, by numbers or by name."""
    module = call.module
    assert isinstance(module, nn.Conv2d)
    call.require(
        module.padding_mode == "zeros",
        f"Conv2d pads by {module.padding_mode}",
        way_round='Use padding_mode="zeros".',
    )
    call.require(call.x.ndim == 4, "Conv2d on an unbatched image", way_round="Keep the axes (B, C, H, W).")
    return Convolution(
        weight=as_double(module.weight),
        bias=None if module.bias is None else as_double(module.bias),
        stride=pair(module.stride),
        padding=_padding(call, module),
        dilation=pair(module.dilation),
        groups=module.groups,
    )


def _padding(call: Call, module: nn.Conv2d) -> tuple[int, int]:
    reach = [d * (k - 1) for k, d in zip(module.kernel_size, module.dilation, strict=True)]
    if module.padding == "valid":
        return 0, 0
    if module.padding == "same":
        call.require(
            all(span % 2 == 0 for span in reach),
            'Conv2d with padding="same" and an even kernel pads one side more than the other',
            way_round="Use an odd kernel.",
        )
        return reach[0] // 2, reach[1] // 2
    padding = pair(module.padding)  # type: ignore[arg-type]
    call.require(
        all(p <= span for p, span in zip(padding, reach, strict=True)),
        "Conv2d pads by more than its kernel reaches",
        way_round="Use a padding of at most dilation * (kernel - 1).",
    )
    return padding
