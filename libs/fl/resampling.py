"""Intervals for figures that have no formula: by drawing the patients again (Efron and Tibshirani, 1993)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt

from libs.data.imageset import POSITIVE
from libs.fl.auc_inference import CONFIDENCE, Interval
from libs.fl.evaluation import Labels, Probabilities, evaluate

RESAMPLES = 2000
_AT_ONCE = 200

Floats = npt.NDArray[np.float64]


def bootstrap(
    probabilities: Probabilities,
    labels: Labels,
    *,
    threshold: float,
    seed: int,
    patients: Sequence[str] | None = None,
    resamples: int = RESAMPLES,
) -> Mapping[str, Interval]:
    """Percentile intervals of AUC, accuracy, sensitivity, specificity and MCC, by name in `Evaluation`.

    Whole patients are drawn with replacement, those with and those without pneumonia each among themselves,
    so that every resample has as many of both. Without `patients` every image is one of its own. Raises
    InvalidInput as `evaluate` does.
    """
    estimate = evaluate(probabilities, labels, threshold=threshold)
    names = list(patients) if patients is not None else [str(i) for i in range(len(labels))]
    owner = np.unique(np.asarray(names), return_inverse=True)[1]
    ill = np.zeros(int(owner.max()) + 1, bool)
    np.logical_or.at(ill, owner, labels == POSITIVE)
    rng = np.random.default_rng(seed)
    drawn: list[dict[str, Floats]] = []
    for start in range(0, resamples, _AT_ONCE):
        times = _draw(ill, count=min(_AT_ONCE, resamples - start), rng=rng)
        drawn.append(_figures(probabilities, labels, times[:, owner], threshold=threshold))
    tail = (1 - CONFIDENCE) / 2
    intervals = {}
    for name in drawn[0]:
        low, high = np.quantile(np.concatenate([part[name] for part in drawn]), [tail, 1 - tail])
        intervals[name] = Interval(getattr(estimate, name), low=float(low), high=float(high))
    return intervals


def _draw(ill: npt.NDArray[np.bool_], *, count: int, rng: np.random.Generator) -> Floats:
    """How often each patient was drawn. Shape (count, patients)."""
    times = np.zeros((count, len(ill)))
    for group in (np.flatnonzero(ill), np.flatnonzero(~ill)):
        if len(group):
            times[:, group] = rng.multinomial(len(group), np.full(len(group), 1 / len(group)), size=count)
    return times


def _figures(
    probabilities: Probabilities, labels: Labels, times: Floats, *, threshold: float
) -> dict[str, Floats]:
    """Every figure of every resample (R,), image i counting `times` (R, N) over."""
    positive, predicted = labels == POSITIVE, probabilities >= threshold
    tp, fn = (times[:, positive & side].sum(axis=1) for side in (predicted, ~predicted))
    fp, tn = (times[:, ~positive & side].sum(axis=1) for side in (predicted, ~predicted))
    margins = (tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)
    return {
        "auc": _aucs(probabilities, positive, times),
        "accuracy": (tp + tn) / (tp + tn + fp + fn),
        "sensitivity": tp / (tp + fn),
        "specificity": tn / np.maximum(tn + fp, 1),
        "mcc": np.where(margins > 0, (tp * tn - fp * fn) / np.sqrt(np.maximum(margins, 1)), 0.0),
    }


def _aucs(probabilities: Probabilities, positive: npt.NDArray[np.bool_], times: Floats) -> Floats:
    """Weighted AUC of each resample: images in order of score, equal scores together."""
    order = np.argsort(probabilities, kind="stable")
    starts = np.flatnonzero(np.diff(probabilities[order], prepend=-np.inf))
    wins, losses = (
        np.add.reduceat(times[:, order] * side[order], starts, axis=1) for side in (positive, ~positive)
    )
    below = np.cumsum(losses, axis=1) - losses
    pairs = np.maximum(wins.sum(axis=1) * losses.sum(axis=1), 1)
    areas: Floats = (wins * (below + losses / 2)).sum(axis=1) / pairs
    return areas
