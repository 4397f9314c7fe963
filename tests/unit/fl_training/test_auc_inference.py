"""The error of an AUC against double loops, known distributions and simulated studies."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from libs.core.errors import InvalidInput
from libs.fl.auc_inference import AucEstimates, estimate_aucs

Floats = npt.NDArray[np.float64]
Labels = npt.NDArray[np.int64]


def _scores(
    seed: int, *, detectors: int = 3, count: int = 60, decimals: int | None = None
) -> tuple[Floats, Labels]:
    """Detectors that see the same difficulty of each image, and add errors of their own."""
    rng = np.random.default_rng(seed)
    labels = (rng.random(count) < 0.4).astype(np.int64)
    labels[:4] = [0, 0, 1, 1]
    scores = labels + rng.normal(size=count) + 0.7 * rng.normal(size=(detectors, count))
    return (scores if decimals is None else scores.round(decimals)), labels


def _by_loops(scores: Floats, labels: Labels) -> tuple[Floats, Floats]:
    """DeLong, DeLong and Clarke-Pearson (1988), equations 3 to 6, pair by pair."""
    ill, well = np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)

    def kernel(x: float, y: float) -> float:
        return 1.0 if y < x else 0.5 if y == x else 0.0

    v10 = np.array([[np.mean([kernel(row[i], row[j]) for j in well]) for i in ill] for row in scores])
    v01 = np.array([[np.mean([kernel(row[i], row[j]) for i in ill]) for j in well] for row in scores])
    aucs = v10.mean(axis=1)
    covariance = np.zeros((len(scores), len(scores)))
    for r, s in itertools.product(range(len(scores)), repeat=2):
        s10 = sum((v10[r] - aucs[r]) * (v10[s] - aucs[s])) / (len(ill) - 1)
        s01 = sum((v01[r] - aucs[r]) * (v01[s] - aucs[s])) / (len(well) - 1)
        covariance[r, s] = s10 / len(ill) + s01 / len(well)
    return aucs, covariance


@pytest.mark.parametrize("decimals", [None, 0])
@pytest.mark.parametrize("seed", range(3))
def test_covariances_are_those_of_the_papers_sums_also_with_ties(seed: int, decimals: int | None) -> None:
    scores, labels = _scores(seed, decimals=decimals)
    got = estimate_aucs(scores, labels)
    aucs, covariance = _by_loops(scores, labels)
    np.testing.assert_allclose(got.aucs, aucs, rtol=1e-12)
    np.testing.assert_allclose(got.covariance, covariance, rtol=1e-10, atol=1e-15)


def test_the_area_is_mann_whitneys_statistic() -> None:
    scores, labels = _scores(7, decimals=1)
    got = estimate_aucs(scores, labels)
    for row, area in zip(scores, got.aucs, strict=True):
        u = stats.mannwhitneyu(row[labels == 1], row[labels == 0]).statistic
        assert area == pytest.approx(u / ((labels == 1).sum() * (labels == 0).sum()))


def test_a_second_copy_of_every_image_makes_nothing_surer() -> None:
    scores, labels = _scores(3)
    patients = [f"p{i}" for i in range(len(labels))]
    once = estimate_aucs(scores, labels, patients=patients)
    twice = estimate_aucs(np.tile(scores, 2), np.tile(labels, 2), patients=patients * 2)
    np.testing.assert_allclose(once.covariance, estimate_aucs(scores, labels).covariance, rtol=1e-12)
    np.testing.assert_allclose(twice.covariance, once.covariance, rtol=1e-12)


def test_patients_with_images_of_both_classes_are_counted_as_obuchowski_counts_them() -> None:
    scores, labels = _scores(5, detectors=1, count=40)
    patients = [f"p{i % 13}" for i in range(40)]
    got = float(estimate_aucs(scores, labels, patients=patients).covariance[0, 0])
    row, ill, well = scores[0], np.flatnonzero(labels == 1), np.flatnonzero(labels == 0)
    area = np.mean([[(row[i] > row[j]) + (row[i] == row[j]) / 2 for j in well] for i in ill])
    x = [
        sum(np.mean(row[i] > row[well]) - area for i in ill if patients[i] == p) for p in sorted({*patients})
    ]
    y = [
        sum(np.mean(row[ill] > row[j]) - area for j in well if patients[j] == p) for p in sorted({*patients})
    ]
    of_ill, of_well = (len({patients[i] for i in side}) for side in (ill, well))
    m, n = len(ill), len(well)
    expected = of_ill / (of_ill - 1) * np.dot(x, x) / m**2 + of_well / (of_well - 1) * np.dot(y, y) / n**2
    expected += 2 * 13 / 12 * np.dot(x, y) / (m * n)
    assert got == pytest.approx(expected)


def test_intervals_hold_the_true_area_as_often_as_they_say() -> None:
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1], [60, 80])
    true = float(stats.norm.cdf(1.2 / np.sqrt(2)))
    covered = 0
    for _ in range(500):
        interval = estimate_aucs((1.2 * labels + rng.normal(size=140))[None], labels).mean()
        covered += interval.low <= true <= interval.high
    assert 0.92 <= covered / 500 <= 0.98


def test_only_counting_patients_once_covers_when_their_images_are_alike() -> None:
    rng = np.random.default_rng(1)
    owner = np.repeat(np.arange(60), 4)
    labels = (owner % 2).astype(np.int64)
    patients = [str(i) for i in owner]
    true = float(stats.norm.cdf(1.2 / np.sqrt(2)))
    covered = {"by patient": 0, "by image": 0}
    for _ in range(300):
        scores = (1.2 * labels + 0.9 * rng.normal(size=60)[owner] + np.sqrt(0.19) * rng.normal(size=240))[
            None
        ]
        for name, interval in (
            ("by patient", estimate_aucs(scores, labels, patients=patients).mean()),
            ("by image", estimate_aucs(scores, labels).mean()),
        ):
            covered[name] += interval.low <= true <= interval.high
    assert covered["by patient"] / 300 >= 0.9
    assert covered["by image"] / 300 <= 0.8


def test_equal_detectors_are_told_apart_in_one_study_of_twenty() -> None:
    rng = np.random.default_rng(2)
    labels = np.repeat([0, 1], 70)
    p = []
    for _ in range(400):
        scores = labels + rng.normal(size=140) + 0.8 * rng.normal(size=(2, 140))
        p.append(estimate_aucs(scores, labels).compare([0], [1]).p)
    assert 0.02 <= np.mean(np.array(p) < 0.05) <= 0.085
    assert stats.kstest(p, "uniform").pvalue > 0.001


def test_a_detector_is_compared_with_itself_as_the_same() -> None:
    scores, labels = _scores(4)
    same = estimate_aucs(np.stack([scores[0], 2 * scores[0] + 1]), labels).compare([0], [1])
    assert (same.difference.estimate, same.z, same.p) == (0, 0, 1)


def test_a_difference_has_the_sign_of_the_better_one_and_the_p_of_its_z() -> None:
    rng = np.random.default_rng(3)
    labels = np.repeat([0, 1], 100)
    scores = np.stack([2 * labels + rng.normal(size=200), 0.3 * labels + rng.normal(size=200)])
    estimates = estimate_aucs(scores, labels)
    better, worse = estimates.compare([0], [1]), estimates.compare([1], [0])
    assert better.difference.estimate > 0
    assert worse.difference.estimate == -better.difference.estimate
    assert better.p == worse.p == pytest.approx(2 * stats.norm.sf(abs(better.z)))
    assert better.p < 1e-6
    assert better.difference.low > 0


def test_means_over_seeds_are_compared_as_means() -> None:
    scores, labels = _scores(6, detectors=4)
    estimates = estimate_aucs(scores, labels)
    got = estimates.compare([0, 1], [2, 3])
    weights = np.array([0.5, 0.5, -0.5, -0.5])
    assert got.difference.estimate == pytest.approx(weights @ estimates.aucs)
    assert got.z == pytest.approx(got.difference.estimate / np.sqrt(weights @ estimates.covariance @ weights))


def test_the_spread_between_seeds_widens_the_interval_of_their_mean() -> None:
    estimates = AucEstimates(np.array([0.9, 0.94]), np.full((2, 2), 1e-4))
    wide, narrow = estimates.mean(), estimates.mean(spread=False)
    assert wide.high - narrow.high > 0.01
    assert narrow.high == pytest.approx(0.92 + 1.959964 * 0.01)
    assert wide.high == pytest.approx(0.92 + 1.959964 * np.sqrt(1e-4 + 0.0008 / 2))


@pytest.mark.parametrize(
    ("scores", "labels", "patients", "text"),
    [
        ([[0.1, 0.2, 0.3]], [1, 1, 1], None, "both classes"),
        ([[0.1, 0.2, 0.3]], [0, 0, 1], None, "two patients"),
        ([[0.1, 0.2, 0.3, 0.4]], [0, 0, 1, 1], ["a", "b", "c", "c"], "two patients"),
        ([[0.1, np.nan, 0.3, 0.4]], [0, 0, 1, 1], None, "not numbers"),
        ([[0.1, 0.3, 0.4]], [0, 0, 1, 1], None, "one score"),
        ([[0.1, 0.2, 0.3, 0.4]], [0, 0, 1, 1], ["a"], "one patient"),
    ],
)
def test_what_has_no_error_is_refused(
    scores: list[list[float]], labels: list[int], patients: list[str] | None, text: str
) -> None:
    with pytest.raises(InvalidInput, match=text):
        estimate_aucs(np.array(scores), np.array(labels), patients=patients)
