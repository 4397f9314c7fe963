"""The input and the layers with weights: one ring product per evaluator, no message."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from libs.mpc.cost import Cost
from libs.mpc.ring import Ring
from libs.mpc.schemes.masked.comparison import Comparison
from libs.secure_nn.steps.base import Pair, Step
from libs.secure_nn.values import Form, ParameterSpec, Result, ValueSpec

HASH_BYTES = 32
"""The evaluators compare the SHA-256 of the masked input, so that a client cannot give them two."""


@dataclass(frozen=True, kw_only=True)
class Input(Step):
    """The masked image, dealt by the client. Shape (C, H, W). One round: the hash."""

    kind: ClassVar[str] = "input"
    arity: ClassVar[int | None] = 0

    shape: tuple[int, int, int]
    scale: Fraction

    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """The image as the client encodes it."""
        return Result(self.shape, self.scale, Form.MASKED)

    def cost(
        self,
        *,
        inputs: Sequence[ValueSpec],
        output: ValueSpec,
        ring: Ring,
        batch: int,
        comparison: Comparison = Comparison.NARROW,
    ) -> Cost:
        """One hash each way, whatever the batch."""
        return Cost(rounds=1, online_bytes=HASH_BYTES)


@dataclass(frozen=True, kw_only=True)
class WeightedStep(Step):
    """MASKED -> SHARED at scale s_x * s_w. `weight` and `bias` are indices into the plan's parameters."""

    arity: ClassVar[int | None] = 1

    weight: int
    bias: int | None

    def cost(
        self,
        *,
        inputs: Sequence[ValueSpec],
        output: ValueSpec,
        ring: Ring,
        batch: int,
        comparison: Comparison = Comparison.NARROW,
    ) -> Cost:
        """No message online; the dealer sends one correction (c2) per output value."""
        return Cost(dealt_bytes=batch * output.elements * ring.element_bytes)

    def parameters_of(
        self, parameters: Sequence[ParameterSpec]
    ) -> tuple[ParameterSpec, ParameterSpec | None]:
        """The specs of weight and bias. Raises InvalidInput when an index points nowhere."""
        indices = [self.weight] if self.bias is None else [self.weight, self.bias]
        if any(not 0 <= index < len(parameters) for index in indices):
            raise self.refusal("names a parameter that the plan does not have")
        return parameters[self.weight], None if self.bias is None else parameters[self.bias]

    def check_bias(self, bias: ParameterSpec | None, *, outputs: int, scale: Fraction) -> None:
        """A bias is added to the accumulator, so it must have the accumulator's scale."""
        if bias is not None and (bias.shape != (outputs,) or bias.scale != scale):
            raise self.refusal("has a bias of another shape or scale than its output")


@dataclass(frozen=True, kw_only=True)
class Conv2d(WeightedStep):
    """Cross-correlation as `torch.nn.functional.conv2d`, zero padding. Weight (O, C/groups, kh, kw)."""

    kind: ClassVar[str] = "conv2d"

    stride: Pair
    padding: Pair
    dilation: Pair
    groups: int

    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """(C, H, W) -> (O, H', W')."""
        (x,) = inputs
        weight, bias = self.parameters_of(parameters)
        self.need(x, form=Form.MASKED, axes=3)
        if len(weight.shape) != 4:
            raise self.refusal("has a weight that is not of shape (O, C/groups, kh, kw)")
        if min(*self.stride, *self.dilation, self.groups) < 1 or min(self.padding) < 0:
            raise self.refusal("has a stride, dilation or group count below 1, or a negative padding")
        outputs, per_group, *kernel = weight.shape
        if x.shape[0] != per_group * self.groups or outputs % self.groups:
            raise self.refusal("has channels that do not match its weight and groups")
        sizes = []
        for size, k, stride, padding, dilation in zip(
            x.shape[1:], kernel, self.stride, self.padding, self.dilation, strict=True
        ):
            if padding > dilation * (k - 1):
                # also keeps padded sizes, and so an executor's memory, in proportion to the input
                raise self.refusal("pads by more than its kernel reaches")
            span = size + 2 * padding - dilation * (k - 1) - 1
            if span < 0:
                raise self.refusal("has a kernel larger than its input")
            sizes.append(span // stride + 1)
        scale = x.scale * weight.scale
        self.check_bias(bias, outputs=outputs, scale=scale)
        return Result((outputs, *sizes), scale, Form.SHARED)


@dataclass(frozen=True, kw_only=True)
class Linear(WeightedStep):
    """x W^T + bias. x (F,), weight (O, F), output (O,)."""

    kind: ClassVar[str] = "linear"

    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """(F,) -> (O,)."""
        (x,) = inputs
        weight, bias = self.parameters_of(parameters)
        self.need(x, form=Form.MASKED, axes=1)
        if len(weight.shape) != 2 or weight.shape[1] != x.shape[0]:
            raise self.refusal(f"has a weight {weight.shape} that does not match its input {x.shape}")
        scale = x.scale * weight.scale
        self.check_bias(bias, outputs=weight.shape[0], scale=scale)
        return Result((weight.shape[0],), scale, Form.SHARED)
