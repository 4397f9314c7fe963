"""What each evaluator does alone: the local steps of a plan on ring arrays, batch first.

They are linear in their input, so the same function serves a masked value's m, its masks and a share;
only a padding constant is added by one holder alone.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from libs.core.errors import Bug
from libs.mpc.ring import Ring, RingArray
from libs.secure_nn import steps as s

LocalOperation = Callable[[Any, Sequence[RingArray], Ring, bool], RingArray]


def _add(_: s.Add, inputs: Sequence[RingArray], __: Ring, ___: bool) -> RingArray:
    total: RingArray = inputs[0] + inputs[1]
    return total


def _subtract(_: s.Subtract, inputs: Sequence[RingArray], __: Ring, ___: bool) -> RingArray:
    difference: RingArray = inputs[0] - inputs[1]
    return difference


def _add_constant(step: s.AddConstant, inputs: Sequence[RingArray], ring: Ring, constants: bool) -> RingArray:
    if not constants:
        return inputs[0]
    shifted: RingArray = inputs[0] + ring.constant(step.value)
    return shifted


def _flatten(_: s.Flatten, inputs: Sequence[RingArray], __: Ring, ___: bool) -> RingArray:
    return inputs[0].reshape(len(inputs[0]), -1)


def _reshape(step: s.Reshape, inputs: Sequence[RingArray], _: Ring, __: bool) -> RingArray:
    return inputs[0].reshape(len(inputs[0]), *step.shape)


def _concatenate(step: s.Concatenate, inputs: Sequence[RingArray], _: Ring, __: bool) -> RingArray:
    return np.concatenate(inputs, axis=step.axis + 1)


def _lift(step: s.Lift, inputs: Sequence[RingArray], ring: Ring, _: bool) -> RingArray:
    lifted: RingArray = inputs[0] * ring.constant(step.factor)
    return lifted


def _slice(step: s.StridedSlice2d, inputs: Sequence[RingArray], _: Ring, __: bool) -> RingArray:
    return np.ascontiguousarray(inputs[0][:, :, slice(*step.rows), slice(*step.columns)])


def _pad(step: s.Pad2d, inputs: Sequence[RingArray], ring: Ring, constants: bool) -> RingArray:
    border = ((0, 0), (0, 0), (step.top, step.bottom), (step.left, step.right))
    return np.pad(inputs[0], border, constant_values=ring.constant(step.value if constants else 0))


def _sum_pool(step: s.SumPool2d, inputs: Sequence[RingArray], ring: Ring, _: bool) -> RingArray:
    (rows, columns), (row_step, column_step) = step.kernel, step.stride
    x = inputs[0]
    if any(step.padding):
        down, right = step.padding
        x = np.pad(x, ((0, 0), (0, 0), (down, down), (right, right)))
    height = (x.shape[2] - rows) // row_step + 1
    width = (x.shape[3] - columns) // column_step + 1
    total = ring.zeros((*x.shape[:2], height, width))
    for i in range(rows):
        for j in range(columns):
            bottom, end = i + (height - 1) * row_step + 1, j + (width - 1) * column_step + 1
            total += x[:, :, i:bottom:row_step, j:end:column_step]
    return total


def _adaptive_sum_pool(
    step: s.AdaptiveSumPool2d, inputs: Sequence[RingArray], ring: Ring, _: bool
) -> RingArray:
    x = inputs[0]
    rows, columns = step.windows(x.shape[1:])
    area = step.uniform_area(x.shape[1:])
    out = ring.zeros((*x.shape[:2], len(rows), len(columns)))
    for i, (top, bottom) in enumerate(rows):
        band = x[:, :, top:bottom].sum(axis=2, dtype=ring.dtype)
        for j, (left, right) in enumerate(columns):
            weight = ring.constant(area // ((bottom - top) * (right - left)))
            out[:, :, i, j] = band[:, :, left:right].sum(axis=2, dtype=ring.dtype) * weight
    return out


_OPERATIONS: dict[type[s.Step], LocalOperation] = {
    s.Add: _add,
    s.AddConstant: _add_constant,
    s.Subtract: _subtract,
    s.Flatten: _flatten,
    s.Reshape: _reshape,
    s.Concatenate: _concatenate,
    s.Lift: _lift,
    s.StridedSlice2d: _slice,
    s.Pad2d: _pad,
    s.SumPool2d: _sum_pool,
    s.AdaptiveSumPool2d: _adaptive_sum_pool,
}


def is_local(step: s.Step) -> bool:
    """True when `apply_local` knows the step."""
    return type(step) in _OPERATIONS


def apply_local(step: s.Step, inputs: Sequence[RingArray], *, ring: Ring, constants: bool) -> RingArray:
    """The step on arrays (N, ...). `constants` is true for the one holder that adds public constants."""
    operation = _OPERATIONS.get(type(step))
    if operation is None:
        raise Bug(f"No local operation is known for the step {step.kind}.")
    return operation(step, inputs, ring, constants)
