"""What a strategy decides. Everything else about a round is the same for all of them."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from fractions import Fraction
from typing import Protocol


class Strategy(Protocol):
    """How much each hospital counts in a round.

    Weights are exact fractions above 0 that sum to exactly 1. Each hospital applies its own weight
    before it deals its contribution, so the parties only add.
    """

    def weights(self, samples: Mapping[str, int]) -> dict[str, Fraction]:
        """Participant -> weight, from the number of images each one has.

        Raises InvalidInput without participants, or when one of them has no images.
        """
        ...

    def rescaling(self, weights: Mapping[str, Fraction], survivors: Collection[str]) -> Fraction:
        """The public ratio by which the survivors' sum becomes their mean; 1 when all survived.

        Raises InvalidInput when nobody survived or a survivor did not take part.
        """
        ...
