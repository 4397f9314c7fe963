"""Federated averaging (McMahan et al., AISTATS 2017): each image counts the same, wherever it lies."""

from __future__ import annotations

from collections.abc import Mapping
from fractions import Fraction

from libs.core.errors import InvalidInput


class FedAvg:
    """Weight n_k / n: the mean over hospitals of their updates, by number of images."""

    def weights(self, samples: Mapping[str, int]) -> dict[str, Fraction]:
        """Participant -> n_k / sum of n, exactly."""
        if not samples or min(samples.values()) < 1:
            raise InvalidInput("A round needs participants, and each of them needs at least one image.")
        total = sum(samples.values())
        return {participant: Fraction(count, total) for participant, count in samples.items()}
