"""The arithmetic of a privacy ledger: what was spent, what is allowed, and whether one more fits.

Pure functions over values; where entries are kept, and that two do not race for the last of a budget, is the
business of who keeps them.
"""

from __future__ import annotations

import enum
import math
from collections.abc import Iterable
from dataclasses import dataclass
from fractions import Fraction
from typing import Final, Literal

from libs.core.errors import FailedPrecondition, InvalidInput
from libs.dp.accountant import Accountant, epsilon_of
from libs.dp.events import Event
from libs.dp.exact import exact, rounded_up, text_of


class Unbounded(enum.Enum):
    """An epsilon that is no number: nothing is promised, or nothing is limited."""

    UNBOUNDED = "unbounded"


UNBOUNDED: Final = Unbounded.UNBOUNDED

Epsilon = Fraction | Literal[Unbounded.UNBOUNDED]


def epsilon_from(text: str) -> Epsilon:
    """What `epsilon_text` wrote, or a person: "unbounded", or a number as `exact` reads it."""
    return UNBOUNDED if text == UNBOUNDED.value else exact(text)


def epsilon_text(epsilon: Epsilon) -> str:
    """The one way to write an epsilon down."""
    return epsilon.value if isinstance(epsilon, Unbounded) else text_of(epsilon)


@dataclass(frozen=True)
class _Pair:
    epsilon: Epsilon
    delta: Fraction = Fraction(0)

    def __post_init__(self) -> None:
        whole = [self.delta] if isinstance(self.epsilon, Unbounded) else [self.epsilon, self.delta]
        if any(not isinstance(value, Fraction) for value in whole):
            raise InvalidInput("Epsilon and delta are exact fractions in a ledger. Read them with `exact`.")
        if any(value < 0 for value in whole):
            raise InvalidInput("Epsilon and delta are never negative.")
        if self.delta >= 1:
            raise InvalidInput("delta is a probability, below 1.")


@dataclass(frozen=True)
class Budget(_Pair):
    """The most that all entries together may cost. Unbounded only where an owner said so."""


@dataclass(frozen=True)
class Spend(_Pair):
    """What one entry costs: (epsilon, delta) of everything under one approval, or of one release."""

    @classmethod
    def of(cls, event: Event, *, delta: Fraction, accountant: Accountant = Accountant.RDP) -> Spend:
        """The cost of an event by an accountant, rounded up to a millionth."""
        epsilon = epsilon_of(event, delta=float(delta), accountant=accountant)
        if math.isinf(epsilon):
            return cls(UNBOUNDED)
        return cls(rounded_up(epsilon), delta if epsilon > 0 else Fraction(0))


def total(entries: Iterable[Spend]) -> Spend:
    """All entries together by basic composition: epsilons added, deltas added. DECISIONS.md says why.

    Deltas that add up to 1 or more promise nothing, and neither does an unbounded entry.
    """
    epsilon, delta = Fraction(0), Fraction(0)
    for entry in entries:
        if isinstance(entry.epsilon, Unbounded):
            return Spend(UNBOUNDED)
        epsilon, delta = epsilon + entry.epsilon, delta + entry.delta
    return Spend(epsilon, delta) if delta < 1 else Spend(UNBOUNDED)


def would_exceed(entries: Iterable[Spend], new: Spend, budget: Budget) -> bool:
    """Whether `new`, after `entries`, would cost more than the budget. Reaching it exactly is allowed."""
    if isinstance(budget.epsilon, Unbounded):
        return False
    spent = total([*entries, new])
    return (
        isinstance(spent.epsilon, Unbounded) or spent.epsilon > budget.epsilon or spent.delta > budget.delta
    )


def require_room(entries: Iterable[Spend], new: Spend, budget: Budget) -> None:
    """Raises FailedPrecondition when `would_exceed`."""
    if would_exceed(entries, new, budget):
        raise FailedPrecondition(
            "This would cost more privacy than the budget has left. Ask the data owner for a larger budget, "
            "or for less: fewer rounds, or a smaller epsilon."
        )


def remaining(entries: Iterable[Spend], budget: Budget) -> Budget:
    """What the entries leave of the budget; nothing where they took more, which an owner may decide later."""
    if isinstance(budget.epsilon, Unbounded):
        return budget
    spent = total(entries)
    if isinstance(spent.epsilon, Unbounded):
        return Budget(Fraction(0))
    return Budget(
        max(budget.epsilon - spent.epsilon, Fraction(0)), max(budget.delta - spent.delta, Fraction(0))
    )
