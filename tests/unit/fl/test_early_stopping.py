from __future__ import annotations

from collections.abc import Sequence

import pytest

from libs.fl.early_stopping import Verdict, judge
from libs.fl.metrics import SCORE_BINS, RoundMetrics
from libs.fl.strategy_parameters import EarlyStopping


def losses(*values: float) -> list[RoundMetrics]:
    return [RoundMetrics(validation_loss_sum=10 * value, validation_samples=10) for value in values]


def aucs(*right: int) -> list[RoundMetrics]:
    """Of ten pneumonias so many score above all normal images, and the others below."""
    found = []
    for count in right:
        positive, negative = [0] * SCORE_BINS, [0] * SCORE_BINS
        positive[-1], positive[0], negative[5] = count, 10 - count, 10
        found.append(RoundMetrics(positive_scores=tuple(positive), negative_scores=tuple(negative)))
    return found


@pytest.mark.parametrize(
    ("measured", "verdict"),
    [
        ([], Verdict(0, stop=False)),
        ([0.5], Verdict(1, stop=False)),
        ([0.5, 0.6], Verdict(1, stop=False)),
        ([0.5, 0.6, 0.7], Verdict(1, stop=True)),
        ([0.5, 0.6, 0.4], Verdict(3, stop=False)),
        ([0.5, 0.4, 0.4, 0.4], Verdict(2, stop=True)),
        ([0.5, 0.4, 0.3, 0.2], Verdict(4, stop=False)),
    ],
)
def test_training_stops_after_two_rounds_without_a_smaller_loss(
    measured: Sequence[float], verdict: Verdict
) -> None:
    assert judge(EarlyStopping(patience=2), losses(*measured)) == verdict


def test_a_gain_of_no_more_than_min_delta_is_none() -> None:
    rule = EarlyStopping(patience=2, min_delta=0.125)
    assert judge(rule, losses(0.5, 0.4375, 0.375)) == Verdict(1, stop=True)
    assert judge(rule, losses(0.5, 0.4375, 0.25)) == Verdict(3, stop=False)


def test_a_larger_auc_is_better() -> None:
    rule = EarlyStopping(metric="auc", patience=1)
    assert judge(rule, aucs(5, 7)) == Verdict(2, stop=False)
    assert judge(rule, aucs(7, 5)) == Verdict(1, stop=True)


def test_rounds_that_could_not_be_measured_never_stop_training_by_themselves() -> None:
    assert judge(EarlyStopping(patience=1), [RoundMetrics()] * 5) == Verdict(0, stop=False)
    assert judge(EarlyStopping(patience=1), [*losses(0.5), RoundMetrics()]) == Verdict(1, stop=True)
