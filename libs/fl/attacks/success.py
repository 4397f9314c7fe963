"""How well an attack tells members from others, with the errors that so few images allow, and what
differential privacy allows at most.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput
from libs.fl.evaluation import auc

Floats = npt.NDArray[np.float64]
Flags = npt.NDArray[np.bool_]

FALSE_POSITIVE_RATES = (0.01, 0.001)
RESAMPLES = 200


@dataclass(frozen=True)
class Guesses:
    """One attack on one target: scores (N,), who was a member (N,), and each image's patient (N,), a
    number.
    """

    scores: Floats
    member: Flags
    patient: npt.NDArray[np.int64]


@dataclass(frozen=True)
class Interval:
    """A figure and the middle 95 % of it over resampled patients."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Success:
    """Figures of an attack over all its targets. 0.5 is chance for `auc` and `balanced_accuracy`; for a true
    positive rate it is the false positive rate that stands beside it.

    `balanced_accuracy` is that of a threshold chosen on the other targets. `curve` is the ROC: (false, true)
    positive rates, both rising.
    """

    auc: Interval
    tpr_at: dict[float, Interval]
    balanced_accuracy: float
    others: int
    curve: tuple[Floats, Floats]


def measure(targets: Sequence[Guesses], *, seed: int, resamples: int = RESAMPLES) -> Success:
    """The attack's success over `targets`; intervals by resampling patients (bootstrap, percentiles).

    Scores of different targets are compared after each target's are put on one scale by the median and
    quartiles of its others. An image counts once for each target, so patients, not guesses, are drawn.
    """
    pooled = _pool(targets)
    rng = np.random.default_rng(seed)
    people, place = np.unique(pooled.patient, return_inverse=True)
    order = np.argsort(place, kind="stable")
    starts = np.searchsorted(place[order], np.arange(len(people) + 1))
    draws = []
    for _ in range(resamples):
        drawn = rng.integers(len(people), size=len(people))
        rows = np.concatenate([order[starts[k] : starts[k + 1]] for k in drawn])
        draws.append(_figures(pooled.scores[rows], pooled.member[rows]))
    values = _figures(pooled.scores, pooled.member)
    low, high = np.nanpercentile(np.array(draws), [2.5, 97.5], axis=0)
    intervals = [Interval(*map(float, three)) for three in zip(values, low, high, strict=True)]
    return Success(
        auc=intervals[0],
        tpr_at=dict(zip(FALSE_POSITIVE_RATES, intervals[1:], strict=True)),
        balanced_accuracy=_balanced_accuracy(targets),
        others=int((~pooled.member).sum()),
        curve=_roc(pooled.scores, pooled.member),
    )


def most_true_positives(false_positive_rate: float, *, epsilon: float, delta: float) -> float:
    """The largest true positive rate that any attack can have on (epsilon, delta)-DP training.

    Whoever looks for one record among neighbouring data sets (Kairouz et al., 2015, theorem 2.1):
    TPR <= e^epsilon FPR + delta, and 1 - FPR <= e^epsilon (1 - TPR) + delta.
    """
    if epsilon < 0 or not 0 <= delta < 1 or not 0 <= false_positive_rate <= 1:
        raise InvalidInput("epsilon is not negative, and delta and rates are probabilities.")
    if math.isinf(epsilon) or epsilon > 700:  # e^epsilon overflows; nothing is promised there
        return 1.0
    grown = math.exp(epsilon) * false_positive_rate + delta
    rest = 1 - max(0.0, 1 - false_positive_rate - delta) * math.exp(-epsilon)
    return min(1.0, grown, rest)


def _pool(targets: Sequence[Guesses]) -> Guesses:
    scaled = []
    for one in targets:
        others = one.scores[~one.member]
        if not len(others) or len(others) == len(one.scores):
            raise InvalidInput("An attack is measured on members and on others.")
        low, middle, high = np.percentile(others, [25, 50, 75])
        scaled.append((one.scores - middle) / max(high - low, 1e-12))
    return Guesses(
        scores=np.concatenate(scaled),
        member=np.concatenate([one.member for one in targets]),
        patient=np.concatenate([one.patient for one in targets]),
    )


def _figures(scores: Floats, member: Flags) -> tuple[float, ...]:
    """AUC, and the true positive rate at each of FALSE_POSITIVE_RATES."""
    false, true = _roc(scores, member)
    rates = [float(true[np.searchsorted(false, rate, side="right") - 1]) for rate in FALSE_POSITIVE_RATES]
    return (auc(scores, member.astype(np.int64)), *rates)


def _roc(scores: Floats, member: Flags) -> tuple[Floats, Floats]:
    """(false, true) positive rates of every threshold, from nobody to everybody. Equal scores go together."""
    order = np.argsort(-scores, kind="stable")
    ends = np.flatnonzero(np.append(np.diff(scores[order]) != 0, True))
    hits, misses = np.cumsum(member[order])[ends], np.cumsum(~member[order])[ends]
    false = np.concatenate([[0.0], misses / max(1, int((~member).sum()))])
    true = np.concatenate([[0.0], hits / max(1, int(member.sum()))])
    return false, true


def _balanced_accuracy(targets: Sequence[Guesses]) -> float:
    """Mean over targets of (sensitivity + specificity) / 2 at the threshold that is best for all others."""
    if len(targets) < 2:
        raise InvalidInput("A threshold is chosen on other targets; attack at least two.")
    scaled = [_pool([one]) for one in targets]
    found = []
    for k, one in enumerate(scaled):
        rest = _pool([other for j, other in enumerate(targets) if j != k])
        false, true = _roc(rest.scores, rest.member)
        best = int(np.argmax(true - false))
        # The threshold at which so many of the rest are taken for members.
        taken = false[best] * int((~rest.member).sum()) + true[best] * int(rest.member.sum())
        ranked = np.sort(rest.scores)[::-1]
        threshold = ranked[max(0, round(taken) - 1)] if taken else np.inf
        guessed = one.scores >= threshold
        found.append((float(guessed[one.member].mean()) + float((~guessed[~one.member]).mean())) / 2)
    return float(np.mean(found))
