"""From probabilities to the figures of table, summary and page."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from libs.cli.demo.asking import Asked
from libs.cli.demo.baselines import CENTRALISED, Baseline
from libs.cli.demo.journey import Trained
from libs.data.imageset import ImageSet
from libs.fl.evaluation import (
    Evaluation,
    evaluate,
    predict_logits,
    probabilities_of,
    threshold_from_metrics,
)

SMALLEST_BOUND = 2.0**-6


@dataclass(frozen=True)
class Figures:
    """Everything measured on the test images. `clear`: the federated model evaluated without encryption."""

    alone: dict[str, Evaluation]
    centralised: Evaluation
    federated: Evaluation
    encrypted: Evaluation
    threshold: float
    clear_logits: npt.NDArray[np.float64]
    encrypted_logits: npt.NDArray[np.float64]

    @property
    def clear_probabilities(self) -> npt.NDArray[np.float64]:
        """Of pneumonia, from the clear evaluation. Shape (N,)."""
        return probabilities_of(self.clear_logits)

    @property
    def encrypted_probabilities(self) -> npt.NDArray[np.float64]:
        """Of pneumonia, from the encrypted predictions. Shape (N,)."""
        return probabilities_of(self.encrypted_logits)

    @property
    def largest_difference(self) -> float:
        """Between an encrypted and a clear logit, as measured in this run."""
        return float(np.abs(self.encrypted_logits - self.clear_logits).max())

    @property
    def agreement(self) -> float:
        """Fraction of images with the same label.

        Two runs differ only where a score lies on the threshold.
        """
        same = (self.encrypted_probabilities >= self.threshold) == (
            self.clear_probabilities >= self.threshold
        )
        return float(same.mean())

    @property
    def difference_bound(self) -> float:
        """`largest_difference` rounded up to a power of two, at least 2^-6.

        Truncation under shares rounds with fresh randomness each time (a seed would undo the masks), so
        `largest_difference` differs between two runs of one seed; this bound does not.
        """
        return max(SMALLEST_BOUND, 2.0 ** math.ceil(math.log2(max(self.largest_difference, SMALLEST_BOUND))))


def measure(trained: Trained, asked: Asked, baselines: dict[str, Baseline], test: ImageSet) -> Figures:
    """All figures.

    Every threshold was chosen on validation images of the hospitals, never on the test images.
    """
    labels = test.labels
    threshold = threshold_from_metrics(trained.metrics[-1]) or 0.5
    threshold = min(max(threshold, 0.01), 0.99)
    clear = predict_logits(trained.module, test.images).numpy().astype(np.float64)
    lone = {
        name: evaluate(baseline.probabilities, labels, threshold=baseline.threshold)
        for name, baseline in baselines.items()
    }
    centralised = lone.pop(CENTRALISED)
    return Figures(
        alone=dict(sorted(lone.items())),
        centralised=centralised,
        federated=evaluate(probabilities_of(clear), labels, threshold=threshold),
        encrypted=evaluate(probabilities_of(asked.logits), labels, threshold=threshold),
        threshold=threshold,
        clear_logits=clear,
        encrypted_logits=asked.logits,
    )
