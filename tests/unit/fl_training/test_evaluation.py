"""Figures against scikit-learn, and thresholds."""

import numpy as np
import pytest
from sklearn import metrics as oracle

from libs.core.errors import InvalidInput
from libs.fl.evaluation import (
    auc,
    evaluate,
    predict_probabilities,
    probabilities_of,
    threshold_from_metrics,
)
from libs.fl.metrics import RoundMetrics, score_histogram
from libs.models.registry import build_model


def _scores(seed: int, *, count: int = 200, decimals: int = 2) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    return np.clip(rng.normal(0.4 + 0.2 * labels, 0.2), 0, 1).round(decimals), labels.astype(np.int64)


@pytest.mark.parametrize("seed", range(5))
def test_all_figures_equal_scikit_learns_also_with_ties(seed: int) -> None:
    probabilities, labels = _scores(seed, decimals=1)
    got = evaluate(probabilities, labels, threshold=0.45)
    predicted = probabilities >= 0.45
    assert got.auc == pytest.approx(oracle.roc_auc_score(labels, probabilities))
    assert got.accuracy == pytest.approx(oracle.accuracy_score(labels, predicted))
    assert got.sensitivity == pytest.approx(oracle.recall_score(labels, predicted))
    assert got.specificity == pytest.approx(oracle.recall_score(labels, predicted, pos_label=0))
    assert got.mcc == pytest.approx(oracle.matthews_corrcoef(labels, predicted))


def test_answers_that_are_all_the_same_have_no_correlation() -> None:
    probabilities, labels = _scores(0)
    assert evaluate(probabilities, labels, threshold=0.0).mcc == 0


def _threshold(probabilities: np.ndarray, labels: np.ndarray) -> float:
    metrics = RoundMetrics(
        positive_scores=score_histogram(probabilities[labels == 1]),
        negative_scores=score_histogram(probabilities[labels == 0]),
    )
    threshold = threshold_from_metrics(metrics)
    assert threshold is not None
    return threshold


def _quality(probabilities: np.ndarray, labels: np.ndarray, *, threshold: float) -> float:
    result = evaluate(probabilities, labels, threshold=threshold)
    return result.sensitivity + result.specificity


def test_a_perfect_detector_gets_the_threshold_nearest_to_a_half() -> None:
    labels = np.array([0] * 50 + [1] * 50)
    probabilities = np.concatenate([np.linspace(0, 0.3, 50), np.linspace(0.4, 1, 50)])
    threshold = _threshold(probabilities, labels)
    assert _quality(probabilities, labels, threshold=threshold) > 1.9
    assert 0.3 < threshold <= 0.5


def test_a_detector_with_low_scores_gets_a_low_threshold() -> None:
    probabilities, labels = _scores(1, count=2000)
    assert 0.05 < _threshold(probabilities / 5, labels) < 0.15


@pytest.mark.parametrize("power", [0.5, 1, 3])
def test_the_histogram_threshold_is_nearly_as_good_as_the_best_of_all_scores(power: float) -> None:
    probabilities, labels = _scores(2, count=4000, decimals=6)
    moved = probabilities**power
    best = max(_quality(moved, labels, threshold=score) for score in np.unique(moved)[::20])
    assert _quality(moved, labels, threshold=_threshold(moved, labels)) > best - 0.05


def test_a_threshold_needs_both_classes() -> None:
    assert threshold_from_metrics(RoundMetrics()) is None


@pytest.mark.parametrize(
    ("probabilities", "labels"),
    [([0.1, 0.2], [1, 1]), ([0.1, 0.2], [0, 0]), ([0.1, np.nan], [0, 1]), ([0.1], [0, 1])],
)
def test_figures_that_would_mean_nothing_are_refused(probabilities: list[float], labels: list[int]) -> None:
    with pytest.raises(InvalidInput):
        auc(np.array(probabilities), np.array(labels))


def test_prediction_does_not_depend_on_the_batch_and_leaves_the_mode() -> None:
    model = build_model("small_cnn", channels=1, classes=2, size=28, seed=0).train()
    images = np.random.default_rng(0).integers(0, 256, (300, 28, 28), np.uint8)
    whole = predict_probabilities(model, images)
    assert whole.shape == (300,)
    assert np.allclose(whole[7:9], predict_probabilities(model, images[7:9]), atol=1e-6)
    assert model.training


def test_probabilities_are_a_softmax() -> None:
    assert probabilities_of(np.array([[0.0, 0.0], [0.0, np.log(3)]])) == pytest.approx([0.5, 0.75])
