"""Epsilon and delta as people and protos write them: decimal text, "inf" for without differential privacy."""

from __future__ import annotations

import re
from fractions import Fraction

from libs.core.errors import Bug, InvalidInput
from libs.dp.budget import UNBOUNDED, Budget, Epsilon, Spend, Unbounded, would_exceed

WITHOUT_PRIVACY = "inf"
NOTHING = Spend(Fraction(0))

_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,18})?", re.ASCII)
_MAX_DIGITS = 40


def parse_cost(*, epsilon: str, delta: str) -> Spend:
    """Exact. An empty text is 0. InvalidInput for signs, exponents, fractions, and a delta from 1 on."""
    if epsilon == WITHOUT_PRIVACY:
        if delta not in ("", "0"):
            raise InvalidInput("Without differential privacy (epsilon inf) there is no delta. Leave it out.")
        return Spend(UNBOUNDED)
    return Spend(_decimal(epsilon, name="epsilon"), _decimal(delta, name="delta"))


def epsilon_text(epsilon: Epsilon) -> str:
    """What `parse_cost` reads."""
    return WITHOUT_PRIVACY if isinstance(epsilon, Unbounded) else decimal_text(epsilon)


def decimal_text(value: Fraction) -> str:
    """Exact: "0.000001", never an exponent. Bug for a fraction that has no finite decimal form."""
    for digits in range(_MAX_DIGITS):
        scaled = value * 10**digits
        if scaled.denominator == 1:
            whole, rest = divmod(scaled.numerator, 10**digits)
            return f"{whole}.{rest:0{digits}d}" if digits else str(whole)
    raise Bug(f"{value} in the ledger has no decimal form")


def covers(limit: Spend, cost: Spend) -> bool:
    """Whether `cost` is at most `limit`, in both of its parts."""
    return not would_exceed([], cost, budget_of(limit))


def budget_of(limit: Spend) -> Budget:
    """A limit as something to be spent from."""
    return Budget(limit.epsilon, limit.delta)


def in_words(cost: Spend) -> str:
    """For a person."""
    if isinstance(cost.epsilon, Unbounded):
        return "without differential privacy"
    return f"epsilon {decimal_text(cost.epsilon)}, delta {decimal_text(cost.delta)}"


def _decimal(text: str, *, name: str) -> Fraction:
    if not text:
        return Fraction(0)
    if not _DECIMAL.fullmatch(text):
        raise InvalidInput(f"{name} is a decimal number like 2 or 0.00001, or epsilon is inf.")
    return Fraction(text)
