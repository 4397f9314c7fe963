"""What a strategy decides. Everything else about a round is the same for all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Protocol, TypeVar

from libs.core.errors import InvalidInput

P = TypeVar("P")
"""A participant: the coordinator and the parties name hospitals differently."""


class Strategy(Protocol):
    """How much each hospital counts in a round. The coordinator asks it when a round opens.

    Weights are exact fractions above 0 that sum to exactly 1. Each hospital applies its own weight
    before it deals its contribution, so the parties only add.
    """

    def weights(self, samples: Mapping[str, int]) -> dict[str, Fraction]:
        """Participant -> weight, from the number of images each one has.

        Raises InvalidInput without participants, or when one of them has no images.
        """
        ...


def rescaling(weights: Mapping[P, Fraction], survivors: Collection[P]) -> Fraction:
    """The public ratio by which the parties turn the survivors' sum into their mean; 1 when all survived.

    The sum of w_k u_k over the survivors, times 1 / (sum of their w_k), is their weighted mean.
    Raises InvalidInput when nobody survived or a survivor did not take part.
    """
    if not survivors or not set(survivors) <= weights.keys():
        raise InvalidInput("The survivors of a round must be some of its participants, and at least one.")
    return 1 / sum((weights[survivor] for survivor in set(survivors)), Fraction(0))
