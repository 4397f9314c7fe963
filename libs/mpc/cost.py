"""What an operation claims to cost. `tests/conformance/mpc` compares the claim with a transcript."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

F = TypeVar("F", bound=Callable[..., object])

_COST_ATTRIBUTE = "declared_cost"


@dataclass(frozen=True)
class Cost:
    """Rounds, bytes each evaluator sends online, and bytes the dealer sends ahead."""

    rounds: int = 0
    online_bytes: int = 0
    dealt_bytes: int = 0

    def __add__(self, other: Cost) -> Cost:
        """One after the other."""
        return Cost(
            self.rounds + other.rounds,
            self.online_bytes + other.online_bytes,
            self.dealt_bytes + other.dealt_bytes,
        )


def costs(formula: Callable[..., Cost]) -> Callable[[F], F]:
    """Attach the formula of an operation's cost; `declared_cost` finds it again."""

    def attach(operation: F) -> F:
        setattr(operation, _COST_ATTRIBUTE, formula)
        return operation

    return attach


def declared_cost(operation: Callable[..., object]) -> Callable[..., Cost]:
    """The formula that `costs` attached."""
    formula: Callable[..., Cost] = getattr(operation, _COST_ATTRIBUTE)
    return formula
