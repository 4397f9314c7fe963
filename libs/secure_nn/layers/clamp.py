"""torch.nn.ReLU6, Hardtanh and torch.clamp: the difference of two rectifiers."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import torch
from torch import nn

from libs.secure_nn.emitter import Emitter
from libs.secure_nn.graph import Node, Operation, ScaleRule
from libs.secure_nn.registry import Call, reads
from libs.secure_nn.steps import AddConstant, Concatenate, Reshape, StridedSlice2d, Subtract
from libs.secure_nn.values import Shape

ROWS = 1


@dataclass(frozen=True)
class Clamp(Operation):
    """min(max(x, low), high) = low + relu(x - low) - relu(x - high) for low < high; either may be infinite.

    Both comparisons read one opening and share its two rounds: x - low and x - high are open when x
    is, and go through one ReLU side by side. A limit beyond the calibrated bound costs nothing.
    """

    low: float
    high: float

    scale_rule = ScaleRule.ACTIVATION
    needs_open = True
    headroom = 1  # |x - limit| < 2^(bound + 1)

    @property
    def limit(self) -> float:
        """The farther of the two."""
        return max(abs(self.low), abs(self.high))

    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """The float clamp."""
        return torch.clamp(inputs[0], self.low, self.high)

    def emit(self, node: Node, emitter: Emitter) -> None:
        """MASKED -> SHARED at an activation's scale."""
        x = emitter.with_room(emitter.masked(node.inputs[0]), node.name, bits=self.headroom)
        reach = 2.0 ** emitter.values[x].bound
        limits = [min(self.low, reach)] if self.low > -reach else []
        limits += [max(self.high, -reach)] if self.high < reach else []
        rectified = self._rectified(x, limits, node, emitter)
        if self.low > -reach:
            y, offset = rectified.pop(0), self.low
        else:
            multiplier, shift = emitter.ratio(x, emitter.scales[node.name])
            y = emitter.rescaled(x, node.name, multiplier=multiplier, shift=shift)
            offset = min(0.0, self.high + reach)  # where every x is above both limits
        bound = max(emitter.values[y].bound, emitter.bounds[node.name])
        if rectified:
            name = emitter.unique(f"{node.name}.cut")
            step = Subtract(name=name, inputs=(y, rectified[0]), output=emitter.next_value)
            y = emitter.append(step, bound=bound if offset else emitter.bounds[node.name])
        if offset:
            y = _plus(y, offset, f"{node.name}.low", emitter, bound=emitter.bounds[node.name])
        emitter.place(node, y)

    def _rectified(self, x: int, limits: list[float], node: Node, emitter: Emitter) -> list[int]:
        """relu(x - limit) for each limit, SHARED: two rounds for all of them."""
        if not limits:
            return []
        name, bound = node.name, emitter.values[x].bound + 1
        parts = [_plus(x, -limit, f"{name}.minus", emitter, bound=bound) if limit else x for limit in limits]
        joined = _side_by_side(parts, node, emitter, bound=bound)
        bound = max(emitter.values[part].bound for part in parts)
        ratio = emitter.ratio(x, emitter.scales[name])
        step = emitter.relu_step(emitter.unique(name), joined, ratio=ratio, bound=bound)
        relu = emitter.append(step, bound=max(bound, emitter.bounds[name]))
        return [relu] if len(parts) == 1 else _halves(relu, node, emitter)


def _plus(x: int, constant: float, name: str, emitter: Emitter, *, bound: int) -> int:
    """x + constant, rounded towards zero at the value's scale."""
    value = int(Fraction(constant) * emitter.values[x].scale)
    step = AddConstant(name=emitter.unique(name), inputs=(x,), output=emitter.next_value, value=value)
    return emitter.append(step, bound=bound)


def _side_by_side(parts: list[int], node: Node, emitter: Emitter, *, bound: int) -> int:
    """The parts in one value, so that one step compares them."""
    if len(parts) == 1:
        return parts[0]
    if len(node.shape) == 1:
        parts = [_reshaped(part, (*node.shape, 1, 1), node.name, emitter) for part in parts]
    name = emitter.unique(f"{node.name}.both")
    step = Concatenate(name=name, inputs=tuple(parts), output=emitter.next_value, axis=ROWS)
    return emitter.append(step, bound=bound)


def _halves(x: int, node: Node, emitter: Emitter) -> list[int]:
    """The upper and the lower half of the rows, in the node's shape."""
    _, both, columns = emitter.values[x].shape
    halves = []
    for start in (0, both // 2):
        step = StridedSlice2d(
            name=emitter.unique(f"{node.name}.half"),
            inputs=(x,),
            output=emitter.next_value,
            rows=(start, start + both // 2, 1),
            columns=(0, columns, 1),
        )
        half = emitter.append(step, bound=emitter.values[x].bound)
        halves.append(_reshaped(half, node.shape, node.name, emitter) if len(node.shape) == 1 else half)
    return halves


def _reshaped(x: int, shape: Shape, name: str, emitter: Emitter) -> int:
    step = Reshape(name=emitter.unique(f"{name}.pixels"), inputs=(x,), output=emitter.next_value, shape=shape)
    return emitter.append(step, bound=emitter.values[x].bound)


@reads(nn.ReLU6, nn.functional.relu6)
def read_relu6(call: Call) -> Operation:
    """From 0 to 6."""
    return Clamp(low=0.0, high=6.0)


@reads(nn.Hardtanh, nn.functional.hardtanh, nn.functional.hardtanh_)
def read_hardtanh(call: Call) -> Operation:
    """From -1 to 1, unless it says otherwise."""
    low = call.option("min_val", position=1, default=-1.0)
    return _read(call, low, call.option("max_val", position=2, default=1.0))


@reads(torch.clamp, torch.clamp_, torch.clip, "clamp", "clamp_", "clip", "clip_")
def read_clamp(call: Call) -> Operation:
    """With numbers, not tensors, as limits."""
    return _read(
        call, call.option("min", position=1, default=None), call.option("max", position=2, default=None)
    )


@reads(torch.clamp_min, torch.clamp_min_, "clamp_min", "clamp_min_")
def read_clamp_min(call: Call) -> Operation:
    """From below only."""
    return _read(call, call.option("min", position=1, default=None), None)


@reads(torch.clamp_max, torch.clamp_max_, "clamp_max", "clamp_max_")
def read_clamp_max(call: Call) -> Operation:
    """From above only."""
    return _read(call, None, call.option("max", position=1, default=None))


def _read(call: Call, low: Any, high: Any) -> Operation:
    call.require(
        all(limit is None or isinstance(limit, (int, float)) for limit in (low, high)),
        "a clamp between tensors",
        way_round="Use fixed numbers as limits.",
    )
    lower = -math.inf if low is None else float(low)
    upper = math.inf if high is None else float(high)
    call.require(
        lower < upper and min(abs(lower), abs(upper)) < math.inf,
        f"a clamp from {lower} to {upper}",
        way_round="Use a lower limit below the upper one.",
    )
    return Clamp(low=lower, high=upper)
