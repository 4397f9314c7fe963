"""What every step of a plan can say about itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar

from libs.core.errors import InvalidInput
from libs.mpc.cost import Cost
from libs.mpc.ring import Ring
from libs.mpc.schemes.masked.comparison import Comparison
from libs.secure_nn.values import Form, ParameterSpec, Result, ValueSpec

Pair = tuple[int, int]
Slice = tuple[int, int, int]
"""start, stop, step; all three non-negative, step at least 1."""


@dataclass(frozen=True, kw_only=True)
class Step(ABC):
    """One operation on values, which are named by their numbers.

    A step states what it makes (`result`), which also refuses what it cannot take, and what it
    costs. A plan that arrives over the wire is believed only as far as these recompute it.
    """

    kind: ClassVar[str]
    arity: ClassVar[int | None]
    """Number of inputs; None: two or more."""

    name: str
    inputs: tuple[int, ...]
    output: int

    def specs(self, values: Sequence[ValueSpec]) -> tuple[ValueSpec, ...]:
        """The specs of the inputs."""
        return tuple(values[index] for index in self.inputs)

    @abstractmethod
    def result(self, inputs: Sequence[ValueSpec], parameters: Sequence[ParameterSpec]) -> Result:
        """Shape, scale and form of the output. Raises InvalidInput if the inputs do not suit."""

    def cost(
        self,
        *,
        inputs: Sequence[ValueSpec],
        output: ValueSpec,
        ring: Ring,
        batch: int,
        comparison: Comparison = Comparison.NARROW,
    ) -> Cost:
        """For `batch` images. Local steps cost nothing."""
        return Cost()

    def check_arity(self) -> None:
        """Raises InvalidInput when the number of inputs is not this step's."""
        found = len(self.inputs)
        if found < 2 if self.arity is None else found != self.arity:
            raise self.refusal(f"takes {self.arity or 'two or more'} inputs, not {found}")

    def need(self, spec: ValueSpec, *, form: Form | None = None, axes: int | None = None) -> None:
        """Raises InvalidInput unless the input has this form and this many axes."""
        if form is not None and spec.form is not form:
            raise self.refusal(f"needs a {form.value} input")
        if axes is not None and len(spec.shape) != axes:
            raise self.refusal(f"needs an input with {axes} axes, not {spec.shape}")

    def refusal(self, rule: str) -> InvalidInput:
        """The error for a plan that breaks `rule` here."""
        return InvalidInput(
            f"The plan is not valid: step {self.name!r} ({self.kind}) {rule}. Compile the model again."
        )
