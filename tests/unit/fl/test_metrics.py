from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from libs.core.errors import InvalidInput
from libs.fl.metrics import METRICS_LENGTH, RoundMetrics, decode_metrics, encode_metrics


@pytest.mark.parametrize(
    "wrong",
    [
        {"train_loss_sum": float("nan")},
        {"validation_loss_sum": float("inf")},
        {"train_loss_sum": -1.0},
        {"train_samples": -1},
        {"train_samples": 2**27},
        {"train_loss_sum": 2.0**20},
        {"positive_scores": (1, 2)},
    ],
)
def test_metrics_that_could_not_be_added_are_refused(wrong: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        encode_metrics(replace(RoundMetrics(), **wrong))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "vector", [np.zeros(METRICS_LENGTH - 1, np.uint32), np.zeros(METRICS_LENGTH, np.uint64)]
)
def test_a_vector_that_is_no_metrics_is_refused(vector: np.ndarray) -> None:
    with pytest.raises(InvalidInput):
        decode_metrics(vector)


def test_means_without_samples_are_absent_rather_than_zero() -> None:
    empty = RoundMetrics()
    assert (empty.train_loss, empty.validation_loss, empty.accuracy, empty.auc) == (None, None, None, None)


def test_means_are_sums_over_samples() -> None:
    metrics = RoundMetrics(
        train_loss_sum=5.0,
        train_samples=10,
        validation_loss_sum=3.0,
        validation_samples=4,
        true_positives=2,
        false_negatives=1,
        true_negatives=1,
    )
    assert (metrics.train_loss, metrics.validation_loss, metrics.accuracy) == (0.5, 0.75, 0.75)
