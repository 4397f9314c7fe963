from __future__ import annotations

from dataclasses import fields

import numpy as np
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from sklearn.metrics import roc_auc_score

from libs.fl.metrics import (
    LOSS_SCALE_BITS,
    METRICS_LENGTH,
    SCORE_BINS,
    RoundMetrics,
    decode_metrics,
    encode_metrics,
    score_histogram,
)

numbers = st.integers(0, 10_000)
histograms = arrays(np.int64, SCORE_BINS, elements=numbers).map(lambda bins: tuple(bins.tolist()))
metrics = st.builds(
    RoundMetrics,
    train_loss_sum=st.floats(0, 10_000),
    train_samples=numbers,
    validation_loss_sum=st.floats(0, 10_000),
    validation_samples=numbers,
    true_positives=numbers,
    false_positives=numbers,
    true_negatives=numbers,
    false_negatives=numbers,
    positive_scores=histograms,
    negative_scores=histograms,
)


@given(st.lists(metrics, min_size=1, max_size=4))
def test_the_ring_sum_of_metrics_is_the_metrics_of_all(parts: list[RoundMetrics]) -> None:
    encoded = np.sum(np.stack([encode_metrics(part) for part in parts]), axis=0, dtype=np.uint32)
    assert encoded.shape == (METRICS_LENGTH,)
    got = decode_metrics(encoded)
    allowed = len(parts) / 2 / 2**LOSS_SCALE_BITS + 1e-9
    for field in fields(RoundMetrics):
        values = [getattr(part, field.name) for part in parts]
        found = getattr(got, field.name)
        if field.name.endswith("loss_sum"):
            assert abs(found - sum(values)) <= allowed
        elif field.name.endswith("scores"):
            assert found == tuple(sum(bins) for bins in zip(*values, strict=True))
        else:
            assert found == sum(values)


@given(st.lists(st.tuples(st.floats(0, 1), st.booleans()), min_size=2, max_size=60))
def test_the_auc_of_the_histograms_is_the_auc_of_binned_scores(scored: list[tuple[float, bool]]) -> None:
    scores = np.array([score for score, _ in scored])
    positive = np.array([label for _, label in scored])
    found = RoundMetrics(
        positive_scores=score_histogram(scores[positive]), negative_scores=score_histogram(scores[~positive])
    ).auc
    if positive.all() or not positive.any():
        assert found is None
        return
    binned = np.minimum((scores * SCORE_BINS).astype(int), SCORE_BINS - 1)
    assert found is not None
    assert abs(found - roc_auc_score(positive, binned)) < 1e-9
