"""The two ways to compare with zero, and the table of their operations.

The choice belongs to one prediction, not to the model: it depends on the link between the evaluators.
"""

from __future__ import annotations

import enum
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from libs.mpc.cost import Cost
from libs.mpc.program import Program
from libs.mpc.ring import RingArray
from libs.mpc.schemes.masked.relu import ReluShape, deal_relu, prepare_relu, relu, relu_cost
from libs.mpc.schemes.masked.relu_wide import deal_relu_wide, prepare_relu_wide, relu_wide, relu_wide_cost
from libs.mpc.schemes.masked.roles import Evaluator
from libs.mpc.schemes.masked.tape import DealerTape, EvaluatorTape


class Comparison(enum.StrEnum):
    """How a ReLU finds the sign."""

    NARROW = "narrow"
    """Blocks of 4 bits: two rounds, few dealt bytes. For fast links."""
    WIDE = "wide"
    """Two wide blocks: one round, three times the dealt bytes. For slow links."""


@dataclass(frozen=True)
class ReluOperations:
    """A ReLU's three functions and its price; the material is what `prepare` makes and `evaluate` takes."""

    deal: Callable[[DealerTape, str, RingArray, ReluShape], None]
    prepare: Callable[[EvaluatorTape, str, RingArray, ReluShape], Any]
    evaluate: Callable[[Evaluator, str, RingArray, Any, ReluShape], Program[RingArray]]
    cost: Callable[[int, ReluShape], Cost]


RELU_OPERATIONS = {
    Comparison.NARROW: ReluOperations(deal_relu, prepare_relu, relu, relu_cost),
    Comparison.WIDE: ReluOperations(deal_relu_wide, prepare_relu_wide, relu_wide, relu_wide_cost),
}
"""Both take the same shapes and give the same results."""
