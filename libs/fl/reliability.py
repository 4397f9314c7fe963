"""Whether a probability of pneumonia means what it says: Brier score, expected calibration error, diagram."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from libs.data.imageset import POSITIVE
from libs.fl.evaluation import Labels, Probabilities, require_scores

BINS = 10


@dataclass(frozen=True)
class Bin:
    """Images whose probability of pneumonia lies in one of BINS equal parts of [0, 1]."""

    images: int
    predicted: float
    """Mean probability."""
    observed: float
    """Fraction with pneumonia."""


@dataclass(frozen=True)
class Reliability:
    """`brier`: mean squared difference of probability and truth (Brier, 1950). `expected_error`: mean
    |predicted - observed| over the bins, weighed by images (Naeini et al., 2015). `bins`: those with images.
    """

    brier: float
    expected_error: float
    bins: tuple[Bin, ...]


def reliability(probabilities: Probabilities, labels: Labels) -> Reliability:
    """How well probabilities (N,) are calibrated on these images. Raises InvalidInput as `evaluate` does."""
    positive = require_scores(probabilities, labels).astype(np.float64)
    place = np.minimum((probabilities * BINS).astype(np.int64), BINS - 1)  # 1.0 belongs to the last bin
    bins = tuple(
        Bin(
            images=int(inside.sum()),
            predicted=float(probabilities[inside].mean()),
            observed=float(positive[inside].mean()),
        )
        for inside in (place == number for number in range(BINS))
        if inside.any()
    )
    return Reliability(
        brier=float(((probabilities - positive) ** 2).mean()),
        expected_error=sum(b.images * abs(b.predicted - b.observed) for b in bins) / len(labels),
        bins=bins,
    )


def majority_brier(labels: Labels) -> float:
    """The Brier score of who answers the share of pneumonia among these images to every question."""
    share = float((labels == POSITIVE).mean())
    return share * (1 - share)
