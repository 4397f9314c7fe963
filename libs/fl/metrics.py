"""What one hospital measured in one training round, as numbers that can be added under shares.

Everything is a sum or a count, so the ring sum over hospitals is the metrics of all of them
together and no hospital's own loss or confusion table is ever opened.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput

SCORE_BINS = 32
"""Bins of each score histogram over the probability [0, 1]; enough for an AUC to about 0.01."""

LOSS_SCALE_BITS = 8
"""Loss sums travel as round(sum * 2^8): the mean over 100 samples is right to 0.00002."""

MAX_HOSPITALS = 32
_LIMIT = 2**32 // MAX_HOSPITALS

_LOSSES = ("train_loss_sum", "validation_loss_sum")
_COUNTS = (
    "train_samples",
    "validation_samples",
    "true_positives",
    "false_positives",
    "true_negatives",
    "false_negatives",
)
METRICS_LENGTH = len(_LOSSES) + len(_COUNTS) + 2 * SCORE_BINS
"""Ring elements of the metrics at the end of every contribution."""

_NO_SCORES = (0,) * SCORE_BINS


@dataclass(frozen=True)
class RoundMetrics:
    """Sums and counts over samples. Training: as seen during the last local epoch; validation: after it.

    "Positive" is class 1 (pneumonia), predicted at probability >= 0.5. The histograms count
    validation samples of each true class by their predicted probability of class 1.
    """

    train_loss_sum: float = 0.0
    train_samples: int = 0
    validation_loss_sum: float = 0.0
    validation_samples: int = 0
    true_positives: int = 0
    false_positives: int = 0
    true_negatives: int = 0
    false_negatives: int = 0
    positive_scores: tuple[int, ...] = _NO_SCORES
    negative_scores: tuple[int, ...] = _NO_SCORES

    @property
    def train_loss(self) -> float | None:
        """Mean training loss, or None without samples."""
        return self.train_loss_sum / self.train_samples if self.train_samples else None

    @property
    def validation_loss(self) -> float | None:
        """Mean validation loss, or None without samples."""
        return self.validation_loss_sum / self.validation_samples if self.validation_samples else None

    @property
    def accuracy(self) -> float | None:
        """Validation accuracy at the threshold 0.5, or None without samples."""
        right = self.true_positives + self.true_negatives
        total = right + self.false_positives + self.false_negatives
        return right / total if total else None

    @property
    def auc(self) -> float | None:
        """Validation AUC from the histograms, ties within a bin counted half; None with one class only."""
        positives, negatives = np.array(self.positive_scores), np.array(self.negative_scores)
        pairs = int(positives.sum()) * int(negatives.sum())
        if not pairs:
            return None
        below = np.concatenate([[0], np.cumsum(negatives)[:-1]])
        return float((positives * (below + negatives / 2)).sum() / pairs)


def score_histogram(probabilities: npt.NDArray[np.floating]) -> tuple[int, ...]:
    """How many of the probabilities fall into each of SCORE_BINS equal bins of [0, 1]."""
    counts, _ = np.histogram(probabilities, bins=SCORE_BINS, range=(0.0, 1.0))
    return tuple(int(count) for count in counts)


def encode_metrics(metrics: RoundMetrics) -> npt.NDArray[np.uint32]:
    """The metrics as ring elements. Shape (METRICS_LENGTH,).

    Raises InvalidInput when a value is negative, not finite, or so large that the sum over
    MAX_HOSPITALS hospitals could wrap around 2^32.
    """
    losses = [getattr(metrics, name) for name in _LOSSES]
    if not np.isfinite(losses).all():
        raise InvalidInput(
            "The loss is not a finite number: training diverged. Lower learning_rate in a new plan."
        )
    values = [round(loss * 2**LOSS_SCALE_BITS) for loss in losses]
    values += [getattr(metrics, name) for name in _COUNTS]
    for histogram in (metrics.positive_scores, metrics.negative_scores):
        if len(histogram) != SCORE_BINS:
            raise InvalidInput(f"A score histogram has {SCORE_BINS} bins, not {len(histogram)}.")
        values += histogram
    if min(values) < 0 or max(values) >= _LIMIT:
        raise InvalidInput(
            f"A loss sum or count is outside what {MAX_HOSPITALS} hospitals can add safely. The loss "
            "probably exploded: lower learning_rate in a new plan."
        )
    return np.array(values, dtype=np.uint32)


def decode_metrics(encoded: npt.NDArray[np.uint32]) -> RoundMetrics:
    """The metrics of a ring vector, which may be one hospital's or a sum over hospitals."""
    if encoded.dtype != np.uint32 or encoded.shape != (METRICS_LENGTH,):
        raise InvalidInput(f"Metrics are {METRICS_LENGTH} elements of the 32-bit ring.")
    values = [int(value) for value in encoded]
    edges = [0, len(_LOSSES), len(_LOSSES) + len(_COUNTS)]
    edges += [edges[-1] + SCORE_BINS, edges[-1] + 2 * SCORE_BINS]
    losses, counts, positive, negative = (values[start:end] for start, end in pairwise(edges))
    fields: dict[str, float] = {name: v / 2**LOSS_SCALE_BITS for name, v in zip(_LOSSES, losses, strict=True)}
    whole: dict[str, int] = dict(zip(_COUNTS, counts, strict=True))
    return RoundMetrics(
        train_loss_sum=fields["train_loss_sum"],
        validation_loss_sum=fields["validation_loss_sum"],
        positive_scores=tuple(positive),
        negative_scores=tuple(negative),
        **whole,
    )
