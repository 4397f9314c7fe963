"""The steps that each evaluator does alone, on either form; all inputs have one form and one scale."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction
from math import prod
from typing import ClassVar

from libs.secure_nn.steps.base import Pair, Slice, Step
from libs.secure_nn.values import Form, ParameterSpec, Result, ValueSpec, adaptive_windows, lcm_of

MAX_WINDOWS = 8192
"""Adaptive windows along one side."""


@dataclass(frozen=True, kw_only=True)
class JoiningStep(Step):
    """Takes several inputs of equal form and scale."""

    def check_alike(self, inputs: Sequence[ValueSpec]) -> None:
        """Adding numbers of different scales is the classic silent error of residual networks."""
        if len({(x.form, x.scale) for x in inputs}) != 1:
            raise self.refusal("joins values of different forms or scales")


@dataclass(frozen=True, kw_only=True)
class _Elementwise(JoiningStep):
    arity: ClassVar[int | None] = 2

    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """Equal shapes, no broadcasting."""
        left, right = inputs
        self.check_alike(inputs)
        if left.shape != right.shape:
            raise self.refusal(f"joins shapes {left.shape} and {right.shape}")
        return Result(left.shape, left.scale, left.form)


@dataclass(frozen=True, kw_only=True)
class Add(_Elementwise):
    """x + y."""

    kind: ClassVar[str] = "add"


@dataclass(frozen=True, kw_only=True)
class Subtract(_Elementwise):
    """x - y."""

    kind: ClassVar[str] = "subtract"


@dataclass(frozen=True, kw_only=True)
class Flatten(Step):
    """Any shape -> (elements,), C order."""

    kind: ClassVar[str] = "flatten"
    arity: ClassVar[int | None] = 1

    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """One axis."""
        (x,) = inputs
        return Result((x.elements,), x.scale, x.form)


@dataclass(frozen=True, kw_only=True)
class Reshape(Step):
    """To `shape` (without the batch), C order."""

    kind: ClassVar[str] = "reshape"
    arity: ClassVar[int | None] = 1

    shape: tuple[int, ...]

    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """As many elements as before."""
        (x,) = inputs
        if prod(self.shape) != x.elements:
            raise self.refusal(f"cannot turn {x.shape} into {self.shape}")
        return Result(self.shape, x.scale, x.form)


@dataclass(frozen=True, kw_only=True)
class Concatenate(JoiningStep):
    """Along `axis`, counted without the batch (0: channels)."""

    kind: ClassVar[str] = "concatenate"
    arity: ClassVar[int | None] = None

    axis: int

    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """The other axes must agree."""
        self.check_alike(inputs)
        first = inputs[0].shape
        if not 0 <= self.axis < len(first):
            raise self.refusal("joins along an axis that its inputs do not have")
        others = {(len(x.shape), x.shape[: self.axis], x.shape[self.axis + 1 :]) for x in inputs}
        if len(others) != 1:
            raise self.refusal("joins shapes that differ beyond the joined axis")
        length = sum(x.shape[self.axis] for x in inputs)
        shape = (*first[: self.axis], length, *first[self.axis + 1 :])
        return Result(shape, inputs[0].scale, inputs[0].form)


@dataclass(frozen=True, kw_only=True)
class SumPool2d(Step):
    """Window sums; as an average the scale grows by the window's area. Zero padding counts, as in
    `torch.nn.AvgPool2d(count_include_pad=True)`."""

    kind: ClassVar[str] = "sum_pool2d"
    arity: ClassVar[int | None] = 1

    kernel: Pair
    stride: Pair
    padding: Pair

    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """(C, H, W) -> (C, H', W'), scale * area."""
        (x,) = inputs
        self.need(x, axes=3)
        sizes = []
        for size, kernel, stride, padding in zip(
            x.shape[1:], self.kernel, self.stride, self.padding, strict=True
        ):
            if min(kernel, stride) < 1 or not 0 <= 2 * padding <= kernel or size + 2 * padding < kernel:
                raise self.refusal("has a window, stride or padding that does not fit its input")
            sizes.append((size + 2 * padding - kernel) // stride + 1)
        return Result((x.shape[0], *sizes), x.scale * prod(self.kernel), x.form)


@dataclass(frozen=True, kw_only=True)
class AdaptiveSumPool2d(Step):
    """PyTorch's adaptive windows, of which there may be more than pixels. Each sum is multiplied by
    uniform_area / (area of its window), a whole number, so that one scale fits all averages."""

    kind: ClassVar[str] = "adaptive_sum_pool2d"
    arity: ClassVar[int | None] = 1

    output_size: Pair

    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """(C, H, W) -> (C, *output_size), scale * uniform_area."""
        (x,) = inputs
        self.need(x, axes=3)
        if any(not 1 <= count <= MAX_WINDOWS for count in self.output_size):
            raise self.refusal(f"has an output size outside 1 .. {MAX_WINDOWS}")
        return Result((x.shape[0], *self.output_size), x.scale * self.uniform_area(x.shape), x.form)

    def windows(self, shape: tuple[int, ...]) -> tuple[tuple[Pair, ...], tuple[Pair, ...]]:
        """(start, stop) of the row windows and of the column windows, for an input (C, H, W)."""
        rows, columns = self.output_size
        return adaptive_windows(shape[1], rows), adaptive_windows(shape[2], columns)

    def uniform_area(self, shape: tuple[int, ...]) -> int:
        """A common multiple of all windows' areas."""
        rows, columns = self.windows(shape)
        return lcm_of(stop - start for start, stop in rows) * lcm_of(stop - start for start, stop in columns)


@dataclass(frozen=True, kw_only=True)
class Pad2d(Step):
    """A border of a public constant, given as a signed ring integer at the input's scale.

    MASKED: m is padded with the constant, both masks with 0. SHARED: the first evaluator pads with
    the constant, the second with 0.
    """

    kind: ClassVar[str] = "pad2d"
    arity: ClassVar[int | None] = 1

    left: int
    right: int
    top: int
    bottom: int
    value: int

    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """(C, H, W) -> (C, top + H + bottom, left + W + right)."""
        (x,) = inputs
        self.need(x, axes=3)
        channels, height, width = x.shape
        if min(self.left, self.right, self.top, self.bottom) < 0:
            raise self.refusal("has a negative border")
        if max(self.left, self.right) > width or max(self.top, self.bottom) > height:
            raise self.refusal("has a border wider than its input")
        if abs(self.value) > x.scale * Fraction(2) ** x.bound:
            raise self.refusal("pads with a constant beyond its input's bound")
        shape = (channels, self.top + height + self.bottom, self.left + width + self.right)
        return Result(shape, x.scale, x.form)


@dataclass(frozen=True, kw_only=True)
class AddConstant(Step):
    """Plus a public constant, given as a signed ring integer at the input's scale.

    MASKED: m gets it, the masks stay, so an opened value stays open. SHARED: the first evaluator adds it.
    """

    kind: ClassVar[str] = "add_constant"
    arity: ClassVar[int | None] = 1

    value: int

    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """The same shape and scale."""
        (x,) = inputs
        if abs(self.value) > x.scale * Fraction(2) ** x.bound:
            raise self.refusal("adds a constant beyond its input's bound")
        return Result(x.shape, x.scale, x.form)


@dataclass(frozen=True, kw_only=True)
class StridedSlice2d(Step):
    """x[:, rows, columns]; each a (start, stop, step)."""

    kind: ClassVar[str] = "strided_slice2d"
    arity: ClassVar[int | None] = 1

    rows: Slice
    columns: Slice

    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """(C, H, W) -> (C, H', W'), at least one row and column."""
        (x,) = inputs
        self.need(x, axes=3)
        sizes = []
        for size, (start, stop, step) in zip(x.shape[1:], (self.rows, self.columns), strict=True):
            if step < 1 or not 0 <= start < stop <= size:
                raise self.refusal("slices outside its input")
            sizes.append(len(range(start, stop, step)))
        return Result((x.shape[0], *sizes), x.scale, x.form)


@dataclass(frozen=True, kw_only=True)
class Lift(Step):
    """Ring integers times a public whole number: the same real values at a larger scale."""

    kind: ClassVar[str] = "lift"
    arity: ClassVar[int | None] = 1

    factor: int

    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """scale * factor."""
        (x,) = inputs
        if self.factor < 1:
            raise self.refusal("lifts by a factor below 1")
        return Result(x.shape, x.scale * self.factor, x.form)


@dataclass(frozen=True, kw_only=True)
class ToShared(Step):
    """MASKED -> SHARED without a message: the first evaluator takes m - l1, the second -l2."""

    kind: ClassVar[str] = "to_shared"
    arity: ClassVar[int | None] = 1

    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """The same value in the other form."""
        (x,) = inputs
        self.need(x, form=Form.MASKED)
        return Result(x.shape, x.scale, Form.SHARED)
