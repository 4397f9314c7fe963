"""Weights of hospitals that do not say how many images they have."""

from __future__ import annotations

from collections.abc import Mapping

from libs.core.errors import InvalidInput
from libs.fl.strategies.strategy import P


def counted(samples: Mapping[P, int]) -> dict[P, int]:
    """Participant -> images to weigh it by; 0 in `samples` means that its number is withheld.

    Who withholds counts as the mean of those that tell, rounded to the nearest whole image; all count the
    same where nobody tells. So a withheld number moves no weight, and no weight tells it. Raises InvalidInput
    for a negative number.
    """
    if any(count < 0 for count in samples.values()):
        raise InvalidInput("A hospital has no negative number of images.")
    told = [count for count in samples.values() if count]
    average = (2 * sum(told) + len(told)) // (2 * len(told)) if told else 1
    return {participant: count or average for participant, count in samples.items()}
