"""A compiled model: what three servers agree on, by hash, before they compute anything."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from fractions import Fraction
from functools import cached_property

from libs.core.errors import InvalidInput
from libs.mpc.ring import Ring
from libs.mpc.schemes.masked.comparison import Comparison
from libs.secure_nn import codec
from libs.secure_nn.cost import PlanCost, plan_cost
from libs.secure_nn.steps import STEP_KINDS, Input, Relu, Step, WeightedStep
from libs.secure_nn.values import Form, ParameterSpec, Shape, ValueSpec

FORMAT = "trefoil-plan-1"
MAX_JSON_BYTES = 4 * 2**20
MAX_STEPS = 4096
MAX_ELEMENTS = 2**26
"""Of one value: 256 MiB in the 32-bit ring."""
MAX_PARAMETERS = 2**28
"""In all: 1 GiB in the 32-bit ring, twice what the largest VGG needs."""
MAX_SIDE = 8192
MAX_BOUND = 64


@dataclass(frozen=True)
class Plan:
    """Steps in order of execution; step i makes value i. Cannot be built with a broken rule.

    The first step is the only `Input`; the last value is the output and is SHARED. Every other
    value is used. Parameters lie one after another in one flat vector, in order of use. Raises
    InvalidInput from the constructor: a plan comes over the wire from somebody who may be wrong.
    """

    ring: Ring
    steps: tuple[Step, ...]
    values: tuple[ValueSpec, ...]
    parameters: tuple[ParameterSpec, ...]

    def __post_init__(self) -> None:
        self._check_frame()
        self._check_parameters()
        for position, step in enumerate(self.steps):
            self._check_step(step, position)
        used = {index for step in self.steps for index in step.inputs}
        if used != set(range(len(self.steps) - 1)):
            raise _broken("it computes a value that nothing uses")
        if self.values[-1].form is not Form.SHARED:
            raise _broken("its last value is not shared, so it cannot be given to the client")

    @property
    def input_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of one image."""
        return self._input.shape

    @property
    def input_scale(self) -> Fraction:
        """Ring units for 1.0 of a pixel, as the model expects pixels."""
        return self._input.scale

    @property
    def output_shape(self) -> Shape:
        """Of one image's result."""
        return self.values[-1].shape

    @property
    def output_scale(self) -> Fraction:
        """Ring units for 1.0 of a logit."""
        return self.values[-1].scale

    @property
    def parameter_length(self) -> int:
        """Elements of the flat parameter vector."""
        return sum(parameter.elements for parameter in self.parameters)

    @cached_property
    def hash(self) -> str:
        """SHA-256 of the canonical JSON, in hexadecimal."""
        return hashlib.sha256(self.to_json()).hexdigest()

    def cost(self, batch: int, *, comparison: Comparison = Comparison.NARROW) -> PlanCost:
        """Rounds and bytes of one prediction of `batch` images."""
        return plan_cost(self.steps, self.values, ring=self.ring, batch=batch, comparison=comparison)

    def to_json(self) -> bytes:
        """Canonical: equal plans have equal bytes, on every machine. Written once, as a plan is frozen."""
        return self._canonical_json

    @cached_property
    def _canonical_json(self) -> bytes:
        return codec.canonical(
            {
                "format": FORMAT,
                "ring": self.ring.bits,
                "parameters": [codec.dump(parameter) for parameter in self.parameters],
                "steps": [{"kind": step.kind, **codec.dump(step)} for step in self.steps],
                "values": [codec.dump(value) for value in self.values],
            }
        )

    @classmethod
    def from_json(cls, data: bytes) -> Plan:
        """Read a plan from an untrusted sender; shapes, scales and ranges are computed again.

        Raises InvalidInput unless `data` is the canonical JSON of a valid plan.
        """
        document = codec.load_record(
            codec.parse(data, max_bytes=MAX_JSON_BYTES),
            keys={"format", "ring", "parameters", "steps", "values"},
            what="plan",
        )
        if document["format"] != FORMAT:
            raise codec.malformed(f"its format is not {FORMAT}; both sides need the same version")
        if type(document["ring"]) is not int or document["ring"] not in {ring.bits for ring in Ring}:
            raise codec.malformed("its ring has neither 32 nor 64 bits")
        plan = cls(
            ring=Ring(document["ring"]),
            steps=tuple(_load_step(item) for item in codec.load_list(document["steps"], what="steps")),
            values=tuple(
                codec.load(ValueSpec, item) for item in codec.load_list(document["values"], what="values")
            ),
            parameters=tuple(
                codec.load(ParameterSpec, item)
                for item in codec.load_list(document["parameters"], what="parameters")
            ),
        )
        if plan.to_json() != data:
            raise codec.malformed("it is not in canonical form")
        return plan

    # ---------------------------------------------------------------- the rules

    @property
    def _input(self) -> Input:
        first = self.steps[0]
        assert isinstance(first, Input)  # checked when the plan was built
        return first

    def _check_frame(self) -> None:
        if not 2 <= len(self.steps) <= MAX_STEPS or len(self.values) != len(self.steps):
            raise _broken(f"it needs 2 to {MAX_STEPS} steps and one value for each")
        if [isinstance(step, Input) for step in self.steps] != [True] + [False] * (len(self.steps) - 1):
            raise _broken("the input is not its first step, and only that")
        names = [step.name for step in self.steps]
        if len(set(names)) != len(names):
            raise _broken("two steps have one name")
        if not all(codec.NAME.fullmatch(name) for name in names):
            raise _broken("a step's name holds other signs than letters, digits, dot and underscore")

    def _check_parameters(self) -> None:
        offset = 0
        for parameter in self.parameters:
            if not parameter.shape or min(parameter.shape) < 1 or parameter.offset != offset:
                raise _broken(f"parameter {parameter.name!r} is empty or not right behind the one before")
            if not 0 < parameter.scale < 2 ** (self.ring.bits - 2):
                raise _broken(f"the scale of parameter {parameter.name!r} does not fit the ring")
            offset += parameter.elements
        if offset > MAX_PARAMETERS:
            raise _broken(f"it has more than {MAX_PARAMETERS} parameters")
        used = [
            index
            for step in self.steps
            if isinstance(step, WeightedStep)
            for index in (step.weight, step.bias)
            if index is not None
        ]
        if used != list(range(len(self.parameters))):
            raise _broken("its parameters are not used once each, in order")
        if len({parameter.name for parameter in self.parameters}) != len(self.parameters):
            raise _broken("two parameters have one name")

    def _check_step(self, step: Step, position: int) -> None:
        if step.output != position or any(not 0 <= index < position for index in step.inputs):
            raise step.refusal("is out of order")
        step.check_arity()
        inputs, stated = step.specs(self.values), self.values[position]
        # Sizes first, so that no arithmetic below runs on absurd numbers.
        if not 1 <= len(stated.shape) <= 3 or min(stated.shape) < 1 or stated.elements > MAX_ELEMENTS:
            raise step.refusal(f"makes an empty value or one of more than {MAX_ELEMENTS} elements")
        if max(stated.shape[1:], default=1) > MAX_SIDE:
            raise step.refusal(f"makes an image wider or higher than {MAX_SIDE}")
        if not 0 < stated.scale < 2 ** (self.ring.bits - 2):
            raise step.refusal("states a scale that leaves no room in the ring")
        result = step.result(inputs, self.parameters)
        if (result.shape, result.scale, result.form) != (stated.shape, stated.scale, stated.form):
            raise step.refusal("states a shape, scale or form that does not follow from its inputs")
        if abs(stated.bound) > MAX_BOUND:
            raise step.refusal("states a bound beyond 2^64")
        if stated.scale * Fraction(2) ** stated.bound > 2 ** (self.ring.bits - 2):
            raise step.refusal(f"may overflow: its bound times its scale exceeds 2^{self.ring.bits - 2}")
        if isinstance(step, Relu):
            self._check_window(step, inputs[0])

    def _check_window(self, step: Relu, x: ValueSpec) -> None:
        top = step.window_low + step.window_bits
        if top > self.ring.bits:
            raise step.refusal("has a sign window beyond the ring's bits")
        if x.scale * Fraction(2) ** x.bound > 2 ** (top - 1):
            raise step.refusal("may read a wrong sign: its input's bound exceeds its window")


def _load_step(document: object) -> Step:
    if not isinstance(document, dict) or not isinstance(document.get("kind"), str):
        raise codec.malformed("a step has no kind")
    step = STEP_KINDS.get(document["kind"])
    if step is None:
        raise codec.malformed("it holds a kind of step that this version does not know")
    return codec.load(step, {key: value for key, value in document.items() if key != "kind"})


def _broken(rule: str) -> InvalidInput:
    return InvalidInput(f"The plan is not valid: {rule}. Compile the model again.")
