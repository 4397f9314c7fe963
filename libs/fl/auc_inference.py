"""How sure an AUC is, and whether two detectors that saw the same images differ.

DeLong, DeLong and Clarke-Pearson (Biometrics 1988) estimate the covariance of several empirical AUCs from the
share of the other class that each image beats (its placement). They take images for independent. Several
images of one patient are not, and count as one observation here, as Obuchowski (Biometrics 1997) shows; with
one image for each patient that is DeLong's estimate, to the last digit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import NormalDist

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput
from libs.data.imageset import POSITIVE
from libs.fl.evaluation import Labels

Floats = npt.NDArray[np.float64]

CONFIDENCE = 0.95


@dataclass(frozen=True)
class Interval:
    """An estimate and the borders between which it lies with CONFIDENCE."""

    estimate: float
    low: float
    high: float


@dataclass(frozen=True)
class Comparison:
    """A first AUC minus a second one on the same images, and the two-sided p of "they are the same"."""

    difference: Interval
    z: float
    p: float


@dataclass(frozen=True)
class AucEstimates:
    """`aucs` (K,) of K detectors on the same images, and their `covariance` (K, K)."""

    aucs: Floats
    covariance: Floats

    def mean(self, *, spread: bool = True) -> Interval:
        """The mean AUC of all K, which may be trainings of one recipe from K seeds.

        The variance is that of the mean on these images and, with `spread` and K > 1, the variance between
        the K divided by K, for the choice of seeds. Borders stay within 0 and 1.
        """
        count = len(self.aucs)
        weights = np.full(count, 1 / count)
        variance = float(weights @ self.covariance @ weights)
        if spread and count > 1:
            variance += float(self.aucs.var(ddof=1)) / count
        return _normal(float(self.aucs.mean()), variance, low=0.0, high=1.0)

    def compare(self, first: Sequence[int], second: Sequence[int]) -> Comparison:
        """Mean AUC of the detectors `first` minus that of `second`, by place in `aucs` (DeLong's test)."""
        contrast = np.zeros(len(self.aucs))
        contrast[list(first)] += 1 / len(first)
        contrast[list(second)] -= 1 / len(second)
        difference = float(contrast @ self.aucs)
        variance = float(contrast @ self.covariance @ contrast)
        interval = _normal(difference, variance, low=-1.0, high=1.0)
        if variance <= 0:  # the same order of all images, or no mistake in either: nothing tells them apart
            return Comparison(interval, z=0.0, p=1.0)
        z = difference / math.sqrt(variance)
        return Comparison(interval, z=z, p=math.erfc(abs(z) / math.sqrt(2)))


def estimate_aucs(scores: Floats, labels: Labels, *, patients: Sequence[str] | None = None) -> AucEstimates:
    """AUCs and their covariance, from scores (K, N) of K detectors and labels (N,).

    `patients` (N) names whom each image shows; without it every image counts as a patient of its own. Ties
    count half. Raises InvalidInput unless each class has images of two patients.
    """
    positive = _positives(scores, labels)
    clusters = _clusters(patients, count=len(labels))
    of_positives, of_negatives = clusters[positive], clusters[~positive]
    m, n = len(of_positives), len(of_negatives)
    groups_m, groups_n = len(np.unique(of_positives)), len(np.unique(of_negatives))
    if min(groups_m, groups_n) < 2:
        raise InvalidInput("The error of an AUC can be estimated from two patients of each class up.")
    beats, beaten = _placements(scores, positive)
    aucs = beats.mean(axis=1)
    total = int(clusters.max()) + 1
    # Sums over each patient's images of (placement - AUC): (K, patients), zero where it has none of a class.
    x = _sum_by(of_positives, beats - aucs[:, None], total)
    y = _sum_by(of_negatives, beaten - aucs[:, None], total)
    covariance = groups_m / (groups_m - 1) * (x @ x.T) / m**2 + groups_n / (groups_n - 1) * (y @ y.T) / n**2
    shared = total / (total - 1) * (x @ y.T) / (m * n)  # patients with images of both classes
    return AucEstimates(aucs=aucs, covariance=covariance + shared + shared.T)


def _positives(scores: Floats, labels: Labels) -> npt.NDArray[np.bool_]:
    if scores.ndim != 2 or scores.shape[1:] != labels.shape or not len(scores):
        raise InvalidInput("There must be one score of each detector per label.")
    if not np.isfinite(scores).all():
        raise InvalidInput("Some scores are not numbers. The model's weights are probably broken.")
    positive: npt.NDArray[np.bool_] = labels == POSITIVE
    if positive.all() or not positive.any():
        raise InvalidInput("An AUC needs images of both classes.")
    return positive


def _clusters(patients: Sequence[str] | None, *, count: int) -> npt.NDArray[np.int64]:
    """A number from 0 up for each image: the same for images of one patient."""
    if patients is None:
        return np.arange(count)
    if len(patients) != count:
        raise InvalidInput("There must be one patient per image.")
    return np.unique(np.asarray(patients), return_inverse=True)[1].astype(np.int64)


def _placements(scores: Floats, positive: npt.NDArray[np.bool_]) -> tuple[Floats, Floats]:
    """(of each positive the share of negatives below it, of each negative the share of positives above it).

    Shapes (K, positives) and (K, negatives); ties count half.
    """
    beats, beaten = [], []
    for row in scores:
        ours, theirs = np.sort(row[positive]), np.sort(row[~positive])
        below = np.searchsorted(theirs, row[positive], "left") + np.searchsorted(
            theirs, row[positive], "right"
        )
        above = np.searchsorted(ours, row[~positive], "left") + np.searchsorted(ours, row[~positive], "right")
        beats.append(below / (2 * len(theirs)))
        beaten.append(1 - above / (2 * len(ours)))
    return np.array(beats), np.array(beaten)


def _sum_by(groups: npt.NDArray[np.int64], values: Floats, total: int) -> Floats:
    return np.array([np.bincount(groups, weights=row, minlength=total) for row in values])


def _normal(estimate: float, variance: float, *, low: float, high: float) -> Interval:
    half = NormalDist().inv_cdf((1 + CONFIDENCE) / 2) * math.sqrt(max(variance, 0.0))
    return Interval(estimate, low=max(low, estimate - half), high=min(high, estimate + half))
