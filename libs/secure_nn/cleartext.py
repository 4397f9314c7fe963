"""What a plan computes, without any sharing: in real numbers, and exactly in the ring. The oracle.

Simple and slow on purpose. Both take a batch and keep every value until the end.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch.nn import functional

from libs.core.errors import InvalidInput
from libs.mpc.ring import RingArray
from libs.secure_nn.plan import Plan
from libs.secure_nn.steps import (
    AdaptiveSumPool2d,
    Add,
    AddConstant,
    Concatenate,
    Conv2d,
    Flatten,
    Lift,
    Open,
    Pad2d,
    Relu,
    Rescale,
    Reshape,
    Step,
    StridedSlice2d,
    Subtract,
    SumPool2d,
    ToShared,
    WeightedStep,
)

Array = npt.NDArray[Any]


def run_plan_float(plan: Plan, parameters: Array, images: npt.ArrayLike) -> Array:
    """The plan in float64: no rounding, no ring. What it should give if scales were infinite.

    `parameters` (plan.parameter_length,) real numbers as from `float_parameters`, `images`
    (B, C, H, W); gives (B, *output_shape).
    """
    return _run(plan, _Reals(plan), np.asarray(parameters, np.float64), np.asarray(images, np.float64))


def run_plan_ring(
    plan: Plan,
    parameters: RingArray,
    images: RingArray,
    *,
    rounding: np.random.Generator | None = None,
) -> RingArray:
    """The plan on ring integers, modulo 2^k, signs exact, gives (B, *output_shape).

    `parameters` as from `encode_parameters`, `images` encoded at plan.input_scale (B, C, H, W).
    Without `rounding` every rescaling rounds down, the same on every machine. With it, rescaling
    rounds up with the probability of the fraction it drops, as the secure evaluation does under its
    random masks: that is unbiased, so errors are smaller than those of rounding down. Otherwise
    the secure evaluation differs only in the sign of values below 2^window_low.
    """
    if parameters.dtype != plan.ring.dtype or images.dtype != plan.ring.dtype:
        raise InvalidInput(f"Encode parameters and images for the {plan.ring.bits}-bit ring first.")
    signed = plan.ring.signed_dtype
    result = _run(plan, _RingIntegers(plan, rounding), parameters.view(signed), images.view(signed))
    return np.ascontiguousarray(result).view(plan.ring.dtype)


def _run(plan: Plan, numbers: _Numbers, parameters: Array, images: Array) -> Array:
    if parameters.shape != (plan.parameter_length,):
        raise InvalidInput(f"Expected {plan.parameter_length} parameters, not {parameters.shape}.")
    if images.shape[1:] != plan.input_shape:
        raise InvalidInput(f"Expected images of shape {plan.input_shape}, not {images.shape[1:]}.")
    values = [images]
    for step in plan.steps[1:]:
        inputs = [values[index] for index in step.inputs]
        if isinstance(step, WeightedStep):
            weight = _parameter(plan, parameters, step.weight)
            bias = None if step.bias is None else _parameter(plan, parameters, step.bias)
            values.append(_product(step, inputs[0], weight, bias))
        else:
            values.append(numbers.evaluate(step, inputs))
    return values[-1]


def _parameter(plan: Plan, parameters: Array, index: int) -> Array:
    spec = plan.parameters[index]
    return parameters[spec.offset : spec.offset + spec.elements].reshape(spec.shape)


def _product(step: WeightedStep, x: Array, weight: Array, bias: Array | None) -> Array:
    """torch's integer products wrap as the ring does; its float64 ones are the real thing."""
    if isinstance(step, Conv2d):
        left, right = _tensors(x, _spread(weight, step.dilation))
        y = functional.conv2d(left, right, None, step.stride, step.padding, 1, step.groups).numpy()
        return y if bias is None else y + bias[:, None, None]
    left, right = _tensors(x, weight)
    product = (left @ right.T).numpy()
    return product if bias is None else product + bias


def _tensors(*arrays: Array) -> list[torch.Tensor]:
    return [torch.from_numpy(np.ascontiguousarray(array)) for array in arrays]


def _spread(weight: Array, dilation: tuple[int, int]) -> Array:
    """A dilated kernel as a plain one with zeros between: torch has no dilated integer convolution."""
    outputs, inputs, high, wide = weight.shape
    (down, across) = dilation
    spread = np.zeros((outputs, inputs, down * (high - 1) + 1, across * (wide - 1) + 1), weight.dtype)
    spread[:, :, ::down, ::across] = weight
    return spread


class _Numbers:
    """Steps without weights, on arrays (B, ...) of signed ring integers or of reals."""

    def __init__(self, plan: Plan) -> None:
        self.plan = plan

    def evaluate(self, step: Step, inputs: Sequence[Array]) -> Array:
        """One value."""
        return _LOCAL[type(step)](self, step, inputs)

    def scaled(self, x: Array, *, multiplier: int, shift: int) -> Array:
        """x * multiplier / 2^shift in the units of the output."""
        raise NotImplementedError

    def averaged(self, sums: Array, area: int) -> Array:
        """A window sum as the output's units count it."""
        raise NotImplementedError

    def lifted(self, x: Array, factor: int) -> Array:
        """x at a scale larger by `factor`."""
        raise NotImplementedError

    def constant(self, step: Pad2d | AddConstant) -> Any:
        """The step's public value."""
        raise NotImplementedError


class _Reals(_Numbers):
    """Scales change nothing here."""

    def scaled(self, x: Array, *, multiplier: int, shift: int) -> Array:
        return x

    def averaged(self, sums: Array, area: int) -> Array:
        return sums / area

    def lifted(self, x: Array, factor: int) -> Array:
        return x

    def constant(self, step: Pad2d | AddConstant) -> Any:
        return float(step.value / self.plan.values[step.inputs[0]].scale)


class _RingIntegers(_Numbers):
    """Two's complement integers of the ring's width; numpy wraps them."""

    def __init__(self, plan: Plan, rounding: np.random.Generator | None) -> None:
        super().__init__(plan)
        self.rounding = rounding

    def scaled(self, x: Array, *, multiplier: int, shift: int) -> Array:
        """floor(x * multiplier / 2^shift) modulo 2^k, exactly, in 64-bit arithmetic.

        With x = 2^32 high + low: high * multiplier * 2^(32 - shift) is whole, and low * multiplier
        fits 64 unsigned bits, so the floor of the sum is the sum of the first and the second's floor.
        """
        wide = x.astype(np.int64)
        high = (wide >> 32).view(np.uint64)
        low = wide.view(np.uint64) & np.uint64(0xFFFFFFFF)
        product = high * np.uint64(multiplier) * np.uint64(2 ** (32 - shift))
        fraction = low * np.uint64(multiplier)  # at most (2^32 - 1)^2, so a draw below 2^32 still fits
        if self.rounding is not None:
            fraction += self.rounding.integers(2**shift, size=x.shape, dtype=np.uint64)
        product += fraction >> np.uint64(shift)
        return self._wrapped(product.view(np.int64))

    def averaged(self, sums: Array, area: int) -> Array:
        return sums

    def lifted(self, x: Array, factor: int) -> Array:
        return self._wrapped(x.astype(np.int64) * np.uint64(factor % 2**64).view(np.int64))

    def constant(self, step: Pad2d | AddConstant) -> Any:
        return self.plan.ring.signed_dtype.type(step.value)

    def _wrapped(self, x: Array) -> Array:
        return x.astype(np.uint64).astype(self.plan.ring.dtype).view(self.plan.ring.signed_dtype)


def _relu(numbers: _Numbers, step: Relu, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    return numbers.scaled(np.where(x > 0, x, np.zeros_like(x)), multiplier=step.multiplier, shift=step.shift)


def _rescale(numbers: _Numbers, step: Rescale, inputs: Sequence[Array]) -> Array:
    return numbers.scaled(inputs[0], multiplier=step.multiplier, shift=step.shift)


def _sum_pool(numbers: _Numbers, step: SumPool2d, inputs: Sequence[Array]) -> Array:
    (top, left), (high, wide), (down, across) = step.padding, step.kernel, step.stride
    x = np.pad(inputs[0], ((0, 0), (0, 0), (top, top), (left, left)))
    windows = np.lib.stride_tricks.sliding_window_view(x, step.kernel, axis=(2, 3))
    sums = windows[:, :, ::down, ::across].sum(axis=(4, 5), dtype=x.dtype)
    return numbers.averaged(sums, high * wide)


def _adaptive_sum_pool(numbers: _Numbers, step: AdaptiveSumPool2d, inputs: Sequence[Array]) -> Array:
    (x,) = inputs
    shape = x.shape[1:]
    rows, columns = step.windows(shape)
    common = step.uniform_area(shape)
    y = np.empty((*x.shape[:2], len(rows), len(columns)), x.dtype)
    for i, (top, bottom) in enumerate(rows):
        for j, (left, right) in enumerate(columns):
            multiplier = x.dtype.type(common // ((bottom - top) * (right - left)))
            y[:, :, i, j] = x[:, :, top:bottom, left:right].sum(axis=(2, 3), dtype=x.dtype) * multiplier
    return numbers.averaged(y, common)


def _pad(numbers: _Numbers, step: Pad2d, inputs: Sequence[Array]) -> Array:
    border = ((0, 0), (0, 0), (step.top, step.bottom), (step.left, step.right))
    return np.pad(inputs[0], border, constant_values=numbers.constant(step))


def _slice(numbers: _Numbers, step: StridedSlice2d, inputs: Sequence[Array]) -> Array:
    return inputs[0][:, :, slice(*step.rows), slice(*step.columns)]


_LOCAL: dict[type[Step], Callable[[_Numbers, Any, Sequence[Array]], Array]] = {
    Open: lambda numbers, step, inputs: inputs[0],
    ToShared: lambda numbers, step, inputs: inputs[0],
    Relu: _relu,
    Rescale: _rescale,
    Add: lambda numbers, step, inputs: inputs[0] + inputs[1],
    AddConstant: lambda numbers, step, inputs: inputs[0] + numbers.constant(step),
    Subtract: lambda numbers, step, inputs: inputs[0] - inputs[1],
    Flatten: lambda numbers, step, inputs: inputs[0].reshape(len(inputs[0]), -1),
    Reshape: lambda numbers, step, inputs: inputs[0].reshape(len(inputs[0]), *step.shape),
    Concatenate: lambda numbers, step, inputs: np.concatenate(inputs, axis=step.axis + 1),
    SumPool2d: _sum_pool,
    AdaptiveSumPool2d: _adaptive_sum_pool,
    Pad2d: _pad,
    StridedSlice2d: _slice,
    Lift: lambda numbers, step, inputs: numbers.lifted(inputs[0], step.factor),
}
"""How each kind of step without weights is evaluated."""
