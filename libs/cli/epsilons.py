"""Epsilons as they are typed."""

from __future__ import annotations

from libs.core.errors import InvalidInput

MOST_EPSILON = 1000.0


def parse_epsilons(text: str) -> tuple[float, ...]:
    """The numbers of a text like "1,8"; none of an empty one. Raises InvalidInput for anything else."""
    words = [word.strip() for word in text.split(",") if word.strip()]
    try:
        values = tuple(float(word) for word in words)
    except ValueError:
        values = (0.0,)
    if not all(0 < value <= MOST_EPSILON for value in values):
        raise InvalidInput("Epsilons are numbers above 0, with commas between them, like 1,2,4,8.")
    return values
