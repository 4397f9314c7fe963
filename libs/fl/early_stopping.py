"""When hospitals end training, by metrics that only they and the scientist see. The coordinator sees none.

Every hospital judges the same sums by the same rule, so they agree without talking to each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from libs.fl.metrics import RoundMetrics
from libs.fl.strategy_parameters import EarlyStopping, EarlyStoppingMetric


@dataclass(frozen=True)
class Verdict:
    """`best_round` counts from 1, 0 before any round could be measured; `stop`: no round is worth adding."""

    best_round: int
    stop: bool


def judge(rule: EarlyStopping, metrics: Sequence[RoundMetrics]) -> Verdict:
    """By the summed metrics of rounds 1, 2, ... in turn.

    A round is better when it gains more than `min_delta` on the best so far. A round without validation
    images of both classes (or without any, for the loss) is no better than others, and counts as one more
    without improvement.
    """
    best_round, best = 0, 0.0
    for number, of_round in enumerate(metrics, start=1):
        value = _quality(rule.metric, of_round)
        if value is not None and (best_round == 0 or value > best + rule.min_delta):
            best_round, best = number, value
    return Verdict(best_round, 0 < best_round <= len(metrics) - rule.patience)


def _quality(metric: EarlyStoppingMetric, metrics: RoundMetrics) -> float | None:
    """Larger is better."""
    if metric is EarlyStoppingMetric.AUC:
        return metrics.auc
    return None if metrics.validation_loss is None else -metrics.validation_loss
