"""Numbers of a ledger: exact fractions, so that a hundred times 0.01 is 1 and nothing else."""

from __future__ import annotations

import math
import re
from fractions import Fraction

from libs.core.errors import InvalidInput

STEPS_PER_UNIT = 10**6
"""A float is booked as the next multiple of a millionth above it."""

_DECIMAL = re.compile(r"[0-9]{1,12}(\.[0-9]{1,18})?|[0-9]{1,20}/[1-9][0-9]{0,19}")


def exact(text: str) -> Fraction:
    """The number that "2", "0.01" or "1/3" stands for; never negative.

    Raises InvalidInput for everything else: signs, exponents, NaN and infinity have no place in a ledger.
    """
    if not _DECIMAL.fullmatch(text):
        raise InvalidInput("Write a number like 2, 0.01 or 1/3: digits, and neither a sign nor an exponent.")
    return Fraction(text)


def rounded_up(value: float) -> Fraction:
    """The smallest multiple of a millionth that is not below `value`: what a float costs in a ledger.

    Raises InvalidInput for NaN, infinity and negative numbers.
    """
    if not math.isfinite(value) or value < 0:
        raise InvalidInput("A ledger takes finite numbers from 0 up.")
    return Fraction(math.ceil(Fraction(value) * STEPS_PER_UNIT), STEPS_PER_UNIT)


def text_of(value: Fraction) -> str:
    """The one way to write `value`: "3" or "1/3", in lowest terms. `exact` reads it."""
    return str(value)
