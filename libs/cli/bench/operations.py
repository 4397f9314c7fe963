"""Single operations as plans, from shares to shares: what a layer in the middle of a network costs.

The client's input arrives masked, so it is turned into shares and opened again before the operation: the
opening that turns the shares of the layer before into a masked value is part of what is measured.
"""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import torch

from libs.cli.bench.workload import Workload
from libs.mpc.fixed_point import FixedPoint
from libs.mpc.ring import Ring
from libs.secure_nn import steps as s
from libs.secure_nn.plan import MAX_SIDE, Plan
from libs.secure_nn.values import Form, ParameterSpec, ValueSpec

ACCUMULATOR, ACTIVATION = Fraction(2**24), Fraction(2**12)
"""Scales as the compiler chooses them: a product's before, an activation's after the ReLU."""

WEIGHT = Fraction(2**14)
_WINDOW_BITS = 16
_SEED = 0


class _Steps:
    """Collects steps; each makes the next value."""

    def __init__(self, ring: Ring, parameters: tuple[ParameterSpec, ...]) -> None:
        self._ring, self._parameters = ring, parameters
        self._steps: list[s.Step] = []
        self._values: list[ValueSpec] = []

    def add(self, step: s.Step, *, bound: int = 0) -> int:
        result = step.result(step.specs(self._values), self._parameters)
        self._steps.append(step)
        self._values.append(ValueSpec(result.shape, result.scale, result.form, bound))
        return step.output

    def opened(self, value: int, name: str, *, bound: int = 0) -> int:
        """Masked, whatever it was."""
        if self._values[value].form is Form.MASKED:
            value = self.add(s.ToShared(name=f"{name}.shared", inputs=(value,), output=self.next))
        return self.add(s.Open(name=f"{name}.open", inputs=(value,), output=self.next), bound=bound)

    @property
    def next(self) -> int:
        return len(self._steps)

    def plan(self) -> Plan:
        return Plan(
            ring=self._ring,
            steps=tuple(self._steps),
            values=tuple(self._values),
            parameters=self._parameters,
        )


def relu_workload(elements: int, *, ring: Ring) -> Workload:
    """max(z, 0) of `elements` shared values with rescaling, as every ReLU of a compiled network does it.

    Output (elements + 1,): the last is a product with a weight of 0, for the parties take no model without
    parameters.
    """
    shape = _image_shape(elements)
    weight = ParameterSpec("weight", (1, shape[0]), 1 / ACTIVATION, 0)
    steps = _Steps(ring, (weight,))
    x = steps.add(s.Input(name="x", inputs=(), output=0, shape=shape, scale=ACCUMULATOR))
    opened = steps.opened(x, "x")
    ratio = ACCUMULATOR / ACTIVATION
    relu = steps.add(
        s.Relu(
            name="relu",
            inputs=(opened,),
            output=steps.next,
            multiplier=1,
            shift=int(ratio).bit_length() - 1,
            window_low=int(ACCUMULATOR).bit_length() - _WINDOW_BITS,
            window_bits=_WINDOW_BITS,
        )
    )
    result = steps.add(s.Flatten(name="relu.flat", inputs=(relu,), output=steps.next))
    corner = steps.add(
        s.StridedSlice2d(name="corner", inputs=(x,), output=steps.next, rows=(0, 1, 1), columns=(0, 1, 1))
    )
    flat = steps.add(s.Flatten(name="corner.flat", inputs=(corner,), output=steps.next))
    nothing = steps.add(s.Linear(name="nothing", inputs=(flat,), output=steps.next, weight=0, bias=None))
    steps.add(s.Concatenate(name="both", inputs=(result, nothing), output=steps.next, axis=0))
    generator = np.random.default_rng(_SEED)
    inputs = generator.uniform(-0.999, 0.999, (1, *shape)).astype(np.float32)
    tensor = torch.from_numpy(inputs)
    expected = np.append(np.maximum(inputs, 0).reshape(-1), 0.0).astype(np.float64)[None]
    return Workload(
        name="relu",
        plan=steps.plan(),
        parameters=ring.zeros((shape[0],)),
        inputs=inputs,
        expected=expected,
        plaintext=lambda: torch.relu(tensor),
    )


def matmul_workload(m: int, n: int, k: int, *, ring: Ring) -> Workload:
    """X (m, k) times W (k, n), both secret, then truncated back to X's scale: shares of (m, n).

    Opening X and opening the product for the truncation are both part of it. W is a model's weight: the
    parties mask it once per choice of roles, before anything is timed.
    """
    weight = ParameterSpec("weight", (n, k), WEIGHT, 0)
    steps = _Steps(ring, (weight,))
    x = steps.add(s.Input(name="x", inputs=(), output=0, shape=(k, 1, 1), scale=ACTIVATION))
    rows = steps.add(s.Flatten(name="x.flat", inputs=(steps.opened(x, "x"),), output=steps.next))
    # A sum of k products of uniform numbers with a standard deviation of 1/3 in all: 2^2 is twelve of them.
    product = steps.add(
        s.Linear(name="product", inputs=(rows,), output=steps.next, weight=0, bias=None), bound=2
    )
    opened = steps.opened(product, "product", bound=2)
    shift = int(WEIGHT).bit_length() - 1
    steps.add(
        s.Rescale(name="truncate", inputs=(opened,), output=steps.next, multiplier=1, shift=shift), bound=2
    )
    generator = np.random.default_rng(_SEED)
    inputs = generator.uniform(-0.999, 0.999, (m, k, 1, 1)).astype(np.float32)
    weights = (generator.uniform(-1, 1, (n, k)) / np.sqrt(k)).astype(np.float32)
    left, right = torch.from_numpy(inputs.reshape(m, k)), torch.from_numpy(weights)
    return Workload(
        name="matmul",
        plan=steps.plan(),
        parameters=FixedPoint(ring, WEIGHT).encode(weights.reshape(-1)),
        inputs=inputs,
        expected=(left @ right.T).numpy().astype(np.float64),
        plaintext=lambda: left @ right.T,
    )


def rounds_workload(rounds: int) -> Workload:
    """One value, turned into shares and opened `rounds` times over: messages, and next to no work."""
    ring = Ring.RING_32
    steps = _Steps(ring, (ParameterSpec("weight", (1, 1), WEIGHT, 0),))
    value = steps.add(s.Input(name="x", inputs=(), output=0, shape=(1, 1, 1), scale=ACTIVATION))
    for number in range(rounds):
        value = steps.opened(value, f"round{number}")
    flat = steps.add(s.Flatten(name="flat", inputs=(value,), output=steps.next))
    steps.add(s.Linear(name="once", inputs=(flat,), output=steps.next, weight=0, bias=None))
    inputs = np.full((1, 1, 1, 1), 0.5, np.float32)
    return Workload(
        name="rounds",
        plan=steps.plan(),
        parameters=FixedPoint(ring, WEIGHT).encode([1.0]),
        inputs=inputs,
        expected=inputs.reshape(1, 1).astype(np.float64),
        plaintext=inputs.copy,
    )


def _image_shape(elements: int) -> tuple[int, int, int]:
    """(C, H, W) with that many elements and sides that a plan allows."""
    width = _largest_divisor(elements)
    height = _largest_divisor(elements // width)
    return elements // (width * height), height, width


def _largest_divisor(number: int) -> int:
    """Up to the longest side of an image."""
    return next(side for side in range(min(number, MAX_SIDE), 0, -1) if number % side == 0)
