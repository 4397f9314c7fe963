"""What a plan will cost, added up from what each step declares."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from libs.core.errors import InvalidInput
from libs.mpc.cost import Cost
from libs.mpc.ring import Ring
from libs.mpc.schemes.masked.comparison import Comparison
from libs.secure_nn.steps import Step
from libs.secure_nn.values import ValueSpec


@dataclass(frozen=True)
class PlanCost:
    """Of one prediction: rounds, bytes each evaluator sends the other, bytes the dealer sends one of
    them ahead of time. Framing, TLS, the client's messages and the reveal come on top."""

    rounds: int
    online_bytes_each_way: int
    dealt_bytes: int


def plan_cost(
    steps: Sequence[Step],
    values: Sequence[ValueSpec],
    *,
    ring: Ring,
    batch: int,
    comparison: Comparison = Comparison.NARROW,
) -> PlanCost:
    """The sum over the steps, which run one after another."""
    if batch < 1:
        raise InvalidInput("A batch needs at least one image.")
    total = Cost()
    for step in steps:
        total += step.cost(
            inputs=step.specs(values),
            output=values[step.output],
            ring=ring,
            batch=batch,
            comparison=comparison,
        )
    return PlanCost(total.rounds, total.online_bytes, total.dealt_bytes)
