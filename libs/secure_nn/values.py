"""What a plan says about its values and parameters: shape, scale, form, bound."""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction

Shape = tuple[int, ...]
"""Without the batch: (C, H, W) or (F,)."""


class Form(enum.Enum):
    """How the two evaluators hold a value."""

    MASKED = "masked"
    """Both know m = x + l1 + l2; evaluator j knows l_j; the dealer knows l1 and l2."""
    SHARED = "shared"
    """Each knows one of two additive shares."""


@dataclass(frozen=True)
class ValueSpec:
    """One value between two steps. Ring integer = real number * scale, rounded.

    `bound` is the calibrated promise |real number| < 2^bound on which overflow and sign windows
    rest; nothing checks it at run time, because nobody sees the value.
    """

    shape: Shape
    scale: Fraction
    form: Form
    bound: int

    @property
    def elements(self) -> int:
        """Ring elements of one image."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class ParameterSpec:
    """One weight or bias tensor inside the flat parameter vector, at `offset` (ring elements)."""

    name: str
    shape: Shape
    scale: Fraction
    offset: int

    @property
    def elements(self) -> int:
        """Ring elements of the tensor."""
        return math.prod(self.shape)


@dataclass(frozen=True)
class Result:
    """What a step makes of its inputs, as far as the step alone decides it."""

    shape: Shape
    scale: Fraction
    form: Form


def lcm_of(numbers: Iterable[int]) -> int:
    """Least common multiple; 1 for none."""
    return math.lcm(*numbers)


def adaptive_windows(length: int, count: int) -> tuple[tuple[int, int], ...]:
    """The (start, stop) of each of `count` adaptive pooling windows over `length`, as PyTorch cuts them."""
    return tuple((i * length // count, -(-(i + 1) * length // count)) for i in range(count))
