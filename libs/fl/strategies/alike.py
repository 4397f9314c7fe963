"""Weights of a release, in which all hospitals contribute the same vector: nobody's counts for more."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from libs.core.errors import InvalidInput
from libs.fl.strategies.strategy import Weighing


class Alike:
    """Weight 1 / n for each of n hospitals, so that their contributions can be compared."""

    def weights(self, samples: Mapping[str, int]) -> dict[str, Fraction]:
        """Participant -> 1 / n."""
        if not samples:
            raise InvalidInput("A round needs participants.")
        return {participant: Fraction(1, len(samples)) for participant in samples}


ALIKE: Weighing = Alike()
