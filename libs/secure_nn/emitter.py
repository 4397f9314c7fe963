"""Turns a graph into steps, with the fewest openings: a value is opened when somebody needs it open."""

from __future__ import annotations

import math
from collections.abc import Mapping
from fractions import Fraction

from libs.core.errors import Bug
from libs.mpc.ring import Ring
from libs.secure_nn.errors import RangeTooWide
from libs.secure_nn.graph import Graph, Node
from libs.secure_nn.scales import (
    MAX_WEIGHT_SCALE,
    MIN_BOUND,
    POOLED_BITS,
    WINDOW_BITS,
    accumulator_bits,
    ceil_log2,
    choose_scales,
    floor_log2,
    power,
    value_bits,
)
from libs.secure_nn.steps import Lift, Open, Relu, Rescale, Step, ToShared
from libs.secure_nn.steps.interactive import MAX_MULTIPLIER, MAX_SHIFT
from libs.secure_nn.values import Form, ParameterSpec, Shape, ValueSpec

MIN_WEIGHT_BITS = 6
"""The largest weight keeps at least 64 levels, unless the weights' scale is fine anyhow."""
FINE_WEIGHT_SCALE = 2**16
MAX_FACTOR_BITS = POOLED_BITS + 1
"""A larger value is shifted down before a product: its bits would be taken from the weights."""
PRECISION_BITS = 6
"""sqrt(fan-in) * input bound / weight scale stays 2^6 below what the accumulator can hold; the typical
error, with rounding uniform and inputs well below their bound, is another 2^4 smaller. Weights at
their largest scale pass: they are as fine as they get."""


class Emitter:
    """Collects steps, values and parameters while operations emit themselves, in graph order."""

    def __init__(self, graph: Graph, bounds: Mapping[str, int], ring: Ring) -> None:
        self.graph, self.bounds, self.ring = graph, bounds, ring
        self.scales = choose_scales(graph, bounds, ring)
        self.steps: list[Step] = []
        self.values: list[ValueSpec] = []
        self.parameters: list[ParameterSpec] = []
        self._names: set[str] = set()
        self._forms: dict[str, dict[Form, int]] = {}
        self._activations: dict[str, int] = {}

    # ---------------------------------------------------------------- writing steps

    @property
    def next_value(self) -> int:
        """The number of the value that the next step makes."""
        return len(self.steps)

    def unique(self, name: str) -> str:
        """The name, or the name with a number behind it."""
        number, candidate = 1, name
        while candidate in self._names:
            number += 1
            candidate = f"{name}.{number}"
        self._names.add(candidate)
        return candidate

    def append(self, step: Step, *, bound: int) -> int:
        """Add a step whose result is below 2^bound; the number of its value."""
        result = step.result(step.specs(self.values), self.parameters)
        spec = ValueSpec(result.shape, result.scale, result.form, bound)
        if spec.scale * power(bound) > power(value_bits(self.ring)):
            raise RangeTooWide(step.name, "its values would overflow", bits=self.ring.bits)
        self.steps.append(step)
        self.values.append(spec)
        return step.output

    def define(self, node: Node, step: Step) -> int:
        """Add the step that computes the node's output."""
        value = self.append(step, bound=self.bounds[node.name])
        self.place(node, value)
        return value

    def place(self, node: Node, value: int) -> None:
        """The node's output is this value."""
        self._forms[node.name] = {self.values[value].form: value}

    # ---------------------------------------------------------------- reading values

    def masked(self, name: str) -> int:
        """The node's output as a MASKED value, opened once."""
        forms = self._forms[name]
        if Form.MASKED not in forms:
            forms[Form.MASKED] = self.open(forms[Form.SHARED], name)
        return forms[Form.MASKED]

    def shared(self, name: str) -> int:
        """The node's output as a SHARED value."""
        forms = self._forms[name]
        if Form.SHARED not in forms:
            forms[Form.SHARED] = self.to_shared(forms[Form.MASKED], name)
        return forms[Form.SHARED]

    def either(self, name: str) -> int:
        """MASKED if it is or will be open anyhow, else SHARED: local steps take both."""
        forms = self._forms[name]
        if Form.MASKED in forms or self._will_be_open(name):
            return self.masked(name)
        return forms[Form.SHARED]

    def activation(self, name: str) -> int:
        """MASKED and small enough to be multiplied: accumulators and large sums are shifted down first."""
        if name not in self._activations:
            value = self.masked(name)
            spec = self.values[value]
            bits = ceil_log2(spec.scale * power(spec.bound))
            if bits > MAX_FACTOR_BITS:
                value = self._shifted(value, name, bits=bits - (WINDOW_BITS - 1))
            self._activations[name] = value
        return self._activations[name]

    def with_room(self, value: int, name: str, *, bits: int) -> int:
        """The MASKED value, shifted down if doubling it `bits` times could overflow."""
        spec = self.values[value]
        excess = ceil_log2(spec.scale * power(spec.bound + bits)) - value_bits(self.ring)
        return self._shifted(value, name, bits=excess) if excess > 0 else value

    def aligned(self, node: Node, *, reopens: bool = True) -> tuple[int, ...]:
        """The inputs of a joining node in one form and one scale, lifted by whole numbers if it goes.

        Without `reopens`, what is open already is not made shares of again when the result must be open.
        """
        opened = [Form.MASKED in self._forms[name] for name in node.inputs]
        alike = all(
            is_open or self._will_be_open(name) for is_open, name in zip(opened, node.inputs, strict=True)
        )
        if not reopens and any(opened) and self._will_be_open(node.name):
            alike = True
        read = self.masked if alike else self.shared
        values = [read(name) for name in node.inputs]
        scales = [self.values[value].scale for value in values]
        common = Fraction(
            math.lcm(*(scale.numerator for scale in scales)),
            math.gcd(*(scale.denominator for scale in scales)),
        )
        peak = max(self.bounds[node.name], *(self.values[value].bound for value in values))
        # However small the values, the scale itself must stay below the ring's limit.
        excess = max(0, ceil_log2(common * power(max(peak, 1))) - value_bits(self.ring))
        return tuple(
            self._scaled(value, name, factor=common / self.values[value].scale, shift=excess)
            for value, name in zip(values, node.inputs, strict=True)
        )

    # ---------------------------------------------------------------- small steps

    def open(self, value: int, name: str) -> int:
        """SHARED -> MASKED; a round."""
        step = Open(name=self.unique(f"{name}.open"), inputs=(value,), output=self.next_value)
        return self.append(step, bound=self.values[value].bound)

    def to_shared(self, value: int, name: str) -> int:
        """MASKED -> SHARED."""
        step = ToShared(name=self.unique(f"{name}.shared"), inputs=(value,), output=self.next_value)
        return self.append(step, bound=self.values[value].bound)

    def ratio(self, value: int, target: Fraction) -> tuple[int, int]:
        """(multiplier, shift) from the value's scale to the target: exact, or a shift to just below it."""
        ratio = target / self.values[value].scale
        shift = ratio.denominator.bit_length() - 1
        if ratio.denominator == 2**shift and shift <= MAX_SHIFT and ratio.numerator <= MAX_MULTIPLIER:
            return ratio.numerator, shift
        return 1, min(MAX_SHIFT, max(0, -floor_log2(ratio)))

    def relu_step(self, name: str, value: int, *, ratio: tuple[int, int] | None, bound: int) -> Relu:
        """A ReLU of a MASKED value below 2^bound, its window just above that."""
        multiplier, shift = ratio or (1, 0)
        low = max(0, ceil_log2(self.values[value].scale * power(bound)) - (WINDOW_BITS - 1))
        return Relu(
            name=name,
            inputs=(value,),
            output=self.next_value,
            multiplier=multiplier,
            shift=shift,
            window_low=low,
            window_bits=WINDOW_BITS,
        )

    def place_parameters(self, node: Node, x: int, *, fan_in: int) -> tuple[int, int | None]:
        """Reserve the node's weight and bias, at scales that bring value `x` to the node's scale.

        Raises RangeTooWide when the weights would be too coarse there.
        """
        tensors = node.operation.tensors()
        largest = self.bounds[node.parameter("weight")]
        scale = self.scales[node.name] / self.values[x].scale
        allowed = min(Fraction(MAX_WEIGHT_SCALE), power(value_bits(self.ring) - max(1, largest)))
        scale /= power(max(0, ceil_log2(scale / allowed)))
        self._check_precision(node, x, scale, fan_in=fan_in)
        weight = self._parameter(node.parameter("weight"), tuple(tensors["weight"].shape), scale)
        if "bias" not in tensors:
            return weight, None
        return weight, self._parameter(
            node.parameter("bias"), tuple(tensors["bias"].shape), scale * self.values[x].scale
        )

    def _check_precision(self, node: Node, x: int, scale: Fraction, *, fan_in: int) -> None:
        largest = self.bounds[node.parameter("weight")]
        coarse = scale < FINE_WEIGHT_SCALE and scale * power(largest) < power(MIN_WEIGHT_BITS)
        if coarse and largest > MIN_BOUND:
            raise RangeTooWide(
                node.name, "its outputs are so large that its weights would vanish", bits=self.ring.bits
            )
        reach = accumulator_bits(self.ring) - floor_log2(scale * self.values[x].scale) - PRECISION_BITS
        # Squared, to stay in exact arithmetic: fan_in * (2^bound / scale)^2 <= (2^reach)^2.
        if fan_in * (power(self.values[x].bound) / scale) ** 2 > power(2 * reach):
            raise RangeTooWide(node.name, f"it adds {fan_in} products too coarsely", bits=self.ring.bits)

    def _parameter(self, name: str, shape: Shape, scale: Fraction) -> int:
        offset = sum(parameter.elements for parameter in self.parameters)
        self.parameters.append(ParameterSpec(name, shape, scale, offset))
        return len(self.parameters) - 1

    def _will_be_open(self, name: str) -> bool:
        return any(user.operation.needs_open for user in self.graph.consumers[name])

    def _shifted(self, value: int, name: str, *, bits: int) -> int:
        """A MASKED value at its scale / 2^bits, MASKED again: one round."""
        return self.open(self.rescaled(value, name, multiplier=1, shift=min(bits, MAX_SHIFT)), name)

    def rescaled(self, value: int, name: str, *, multiplier: int, shift: int) -> int:
        step = Rescale(
            name=self.unique(f"{name}.rescale"),
            inputs=(value,),
            output=self.next_value,
            multiplier=multiplier,
            shift=shift,
        )
        return self.append(step, bound=self.values[value].bound)

    def _scaled(self, value: int, name: str, *, factor: Fraction, shift: int) -> int:
        """The value in its form at scale * factor / 2^shift; `factor` is whole."""
        if factor.denominator != 1:
            raise Bug("branches were aligned to a scale that is no common multiple")
        if not shift:
            if factor == 1:
                return value
            lift = Lift(
                name=self.unique(f"{name}.lift"),
                inputs=(value,),
                output=self.next_value,
                factor=factor.numerator,
            )
            return self.append(lift, bound=self.values[value].bound)
        form = self.values[value].form
        if factor.numerator > MAX_MULTIPLIER or shift > MAX_SHIFT:
            raise RangeTooWide(name, "its scale is too far from the branch it joins", bits=self.ring.bits)
        opened = value if form is Form.MASKED else self.open(value, name)
        shared = self.rescaled(opened, name, multiplier=factor.numerator, shift=shift)
        return shared if form is Form.SHARED else self.open(shared, name)


def emit_all(graph: Graph, bounds: Mapping[str, int], ring: Ring) -> Emitter:
    """Every node emitted, the output last and SHARED."""
    emitter = Emitter(graph, bounds, ring)
    for node in graph.nodes:
        node.operation.emit(node, emitter)
    emitter.shared(graph.nodes[-1].name)
    return emitter
