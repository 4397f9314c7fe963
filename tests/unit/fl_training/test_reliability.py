"""Calibration and bootstrap intervals against scikit-learn and counting."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as oracle

from libs.core.errors import InvalidInput
from libs.fl.auc_inference import estimate_aucs
from libs.fl.evaluation import evaluate
from libs.fl.reliability import majority_brier, reliability
from libs.fl.resampling import _figures, bootstrap


def _answers(seed: int, *, count: int = 300, decimals: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    probabilities = rng.random(count).round(decimals)
    return probabilities, (rng.random(count) < probabilities).astype(np.int64)


def test_the_brier_score_is_scikit_learns() -> None:
    probabilities, labels = _answers(0)
    assert reliability(probabilities, labels).brier == pytest.approx(
        oracle.brier_score_loss(labels, probabilities)
    )
    share = float(labels.mean())
    assert majority_brier(labels) == pytest.approx(
        oracle.brier_score_loss(labels, np.full(len(labels), share))
    )


def test_the_calibration_error_is_what_counting_by_hand_gives() -> None:
    probabilities = np.array([0.05, 0.05, 0.15, 0.95, 1.0, 0.2])
    labels = np.array([0, 1, 0, 1, 1, 1])
    got = reliability(probabilities, labels)
    # Bins: [0, .1) holds .05 .05 of which 1 of 2; [.1, .2) holds .15; [.2, .3) holds .2; [.9, 1] the rest.
    assert [(b.images, b.observed) for b in got.bins] == [(2, 0.5), (1, 0.0), (1, 1.0), (2, 1.0)]
    assert got.expected_error == pytest.approx((2 * 0.45 + 0.15 + 0.8 + 2 * 0.025) / 6)


def test_honest_probabilities_have_little_error_and_bold_ones_much() -> None:
    probabilities, labels = _answers(1, count=20_000, decimals=6)
    assert reliability(probabilities, labels).expected_error < 0.02
    assert reliability(np.where(probabilities > 0.5, 0.99, 0.01), labels).expected_error > 0.2


def test_calibration_needs_both_classes_and_numbers() -> None:
    with pytest.raises(InvalidInput, match="both classes"):
        reliability(np.array([0.1, 0.2]), np.array([1, 1]))
    with pytest.raises(InvalidInput, match="not numbers"):
        reliability(np.array([0.1, np.nan]), np.array([0, 1]))


@pytest.mark.parametrize("seed", range(3))
def test_figures_of_a_resample_are_scikit_learns_with_weights(seed: int) -> None:
    probabilities, labels = _answers(seed, decimals=1)
    times = np.random.default_rng(seed).integers(0, 4, size=(5, len(labels))).astype(np.float64)
    got = _figures(probabilities, labels, times, threshold=0.45)
    predicted = probabilities >= 0.45
    for i, weights in enumerate(times):
        told = {"sample_weight": weights}
        assert got["auc"][i] == pytest.approx(oracle.roc_auc_score(labels, probabilities, **told))
        assert got["accuracy"][i] == pytest.approx(oracle.accuracy_score(labels, predicted, **told))
        assert got["sensitivity"][i] == pytest.approx(oracle.recall_score(labels, predicted, **told))
        assert got["specificity"][i] == pytest.approx(
            oracle.recall_score(labels, predicted, pos_label=0, **told)
        )
        assert got["mcc"][i] == pytest.approx(oracle.matthews_corrcoef(labels, predicted, **told))


def test_the_bootstrap_agrees_with_delongs_interval() -> None:
    probabilities, labels = _answers(2)
    drawn = bootstrap(probabilities, labels, threshold=0.5, seed=0)["auc"]
    formula = estimate_aucs(probabilities[None], labels).mean()
    assert drawn.estimate == pytest.approx(formula.estimate)
    assert drawn.low == pytest.approx(formula.low, abs=0.006)
    assert drawn.high == pytest.approx(formula.high, abs=0.006)


def test_whole_patients_are_drawn_so_copies_make_nothing_surer() -> None:
    probabilities, labels = _answers(3, count=150)
    patients = [f"p{i}" for i in range(150)]
    once = bootstrap(probabilities, labels, threshold=0.5, seed=0, patients=patients)
    twice = bootstrap(
        np.tile(probabilities, 2), np.tile(labels, 2), threshold=0.5, seed=0, patients=patients * 2
    )
    for name, interval in once.items():
        assert twice[name].low == pytest.approx(interval.low)
        assert twice[name].high == pytest.approx(interval.high)


def test_estimates_are_those_of_all_images_and_the_seed_repeats_the_borders() -> None:
    probabilities, labels = _answers(4)
    first, second = (bootstrap(probabilities, labels, threshold=0.3, seed=5, resamples=300) for _ in range(2))
    assert first == second
    whole = evaluate(probabilities, labels, threshold=0.3)
    for name, interval in first.items():
        assert interval.estimate == getattr(whole, name)
        assert interval.low < interval.estimate < interval.high
