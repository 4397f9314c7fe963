"""The steps that need messages or dealt secrets: opening, rescaling, ReLU."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from typing import ClassVar

from libs.mpc.cost import Cost
from libs.mpc.ring import Ring
from libs.mpc.schemes.masked.comparison import RELU_OPERATIONS, Comparison
from libs.mpc.schemes.masked.open import open_cost
from libs.mpc.schemes.masked.relu import ReluShape
from libs.mpc.schemes.masked.rescale import rescale_cost
from libs.secure_nn.steps.base import Step
from libs.secure_nn.values import Form, ParameterSpec, Result, ValueSpec

BLOCK_BITS = 4
MAX_SHIFT = 32
MAX_MULTIPLIER = 2**32 - 1
WINDOW_BITS = range(8, 21, BLOCK_BITS)


@dataclass(frozen=True, kw_only=True)
class Open(Step):
    """SHARED -> MASKED: one round, one ring element each way per value."""

    kind: ClassVar[str] = "open"
    arity: ClassVar[int | None] = 1

    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """The same value in the other form."""
        (x,) = inputs
        self.need(x, form=Form.SHARED)
        return Result(x.shape, x.scale, Form.MASKED)

    def cost(
        self,
        *,
        inputs: Sequence[ValueSpec],
        output: ValueSpec,
        ring: Ring,
        batch: int,
        comparison: Comparison = Comparison.NARROW,
    ) -> Cost:
        """The masks come from keys that both sides have; nothing is dealt."""
        return open_cost(batch * output.elements, ring)


@dataclass(frozen=True, kw_only=True)
class ScalingStep(Step):
    """MASKED -> SHARED, multiplied by multiplier / 2^shift and rounded down or up by one at most.

    Right only for |z| < 2^(k-2): above that the wrap-around of m = z + r cannot be told from the
    top bit of m (protocol, section 4).
    """

    arity: ClassVar[int | None] = 1

    multiplier: int
    shift: int

    @property
    def ratio(self) -> Fraction:
        """What values and scale are multiplied by."""
        return Fraction(self.multiplier, 2**self.shift)

    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """The same shape at scale * ratio."""
        (x,) = inputs
        self.need(x, form=Form.MASKED)
        if not 1 <= self.multiplier <= MAX_MULTIPLIER or not 0 <= self.shift <= MAX_SHIFT:
            raise self.refusal("has a multiplier outside [1, 2^32) or a shift outside [0, 32]")
        return Result(x.shape, x.scale * self.ratio, Form.SHARED)


@dataclass(frozen=True, kw_only=True)
class Rescale(ScalingStep):
    """Fixed-point truncation. No round: the input is open already; two dealt elements per value."""

    kind: ClassVar[str] = "rescale"

    def cost(
        self,
        *,
        inputs: Sequence[ValueSpec],
        output: ValueSpec,
        ring: Ring,
        batch: int,
        comparison: Comparison = Comparison.NARROW,
    ) -> Cost:
        """Dealt: r * ratio and the correction for a wrapped r."""
        return rescale_cost(batch * output.elements, ring)


@dataclass(frozen=True, kw_only=True)
class Relu(ScalingStep):
    """max(z, 0) * ratio. One or two rounds; (multiplier, shift) = (1, 0) is the plain ReLU.

    The sign is read from bits [window_low, window_low + window_bits) of the opened value and its
    mask. That is right for 2^window_low <= |z| < 2^(window_low + window_bits - 1); a smaller |z|
    may get either sign, which the compiler keeps below one unit of the output.
    """

    kind: ClassVar[str] = "relu"

    window_low: int
    window_bits: int

    @property
    def blocks(self) -> int:
        """4-bit blocks of the window."""
        return self.window_bits // BLOCK_BITS

    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """The same shape at scale * ratio."""
        if self.window_bits not in WINDOW_BITS or not 0 <= self.window_low <= 64:
            raise self.refusal("has a sign window that is not 8, 12, 16 or 20 bits within the ring")
        return super().result(inputs, parameters)

    def cost(
        self,
        *,
        inputs: Sequence[ValueSpec],
        output: ValueSpec,
        ring: Ring,
        batch: int,
        comparison: Comparison = Comparison.NARROW,
    ) -> Cost:
        """One or two rounds of bits; what is dealt depends on the window and on whether there is a ratio."""
        return RELU_OPERATIONS[comparison].cost(batch * output.elements, self.shape_in(ring))

    def shape_in(self, ring: Ring) -> ReluShape:
        """The protocol's public parameters."""
        return ReluShape(
            multiplier=self.multiplier,
            shift=self.shift,
            window_low=self.window_low,
            window_bits=self.window_bits,
            ring=ring,
        )
