"""The tables of terminal, report and page: lists of texts. A heading that starts with `>` is of numbers."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from libs.cli.evaluate.figures import QUALITIES, RowFigures
from libs.cli.evaluate.options import RowKind
from libs.cli.output import human_bytes, human_seconds
from libs.fl.auc_inference import Interval

Rows = list[list[str]]

QUALITY_COLUMNS = [
    "",
    ">AUC",
    ">95 % interval",
    ">accuracy",
    ">sensitivity",
    ">specificity",
    ">MCC",
    ">AUC - one place",
    ">p",
]
COST_COLUMNS = ["", ">Brier", ">ECE", ">time", ">bytes", ">epsilon", ">delta"]
ERROR_COLUMNS = ["", ">threshold", ">AUC", ">accuracy", ">sensitivity", ">specificity", ">MCC"]
NOTHING = "–"


def quality_rows(table: Sequence[RowFigures]) -> Rows:
    """How good each row is, and how far from all data in one place."""
    return [
        [
            figures.row.title,
            _auc(figures),
            _borders(figures.auc),
            *[f"{figures.mean(name):.3f}" for name in QUALITIES],
            *_against(figures),
        ]
        for figures in table
    ]


def cost_rows(table: Sequence[RowFigures]) -> Rows:
    """Calibration, and what a row cost."""
    return [
        [
            figures.row.title,
            f"{figures.reliability.brier:.3f}",
            f"{figures.reliability.expected_error:.3f}",
            _seconds(figures.cost("seconds")),
            _bytes(figures.cost("bytes")),
            NOTHING if figures.epsilon is None else f"{figures.epsilon:.2f}",
            _delta(figures.cost("delta")),
        ]
        for figures in table
    ]


def error_rows(table: Sequence[RowFigures]) -> Rows:
    """Bootstrap intervals of the first seed's figures."""
    return [
        [
            figures.row.title,
            f"{figures.evaluations[0].threshold:.3f}",
            *[_borders(figures.bootstrap[name]) for name in ("auc", *QUALITIES)],
        ]
        for figures in table
    ]


def agreement_lines(table: Sequence[RowFigures]) -> list[str]:
    """What secrecy changed: of the weights, and a sentence for each model that was asked."""
    lines = _same_weights(table)
    for figures in table:
        facts = figures.outcomes[0].facts
        if "same_labels" in facts:
            lines.append(
                f"{figures.row.title.removeprefix('+ ').capitalize()}: the same label as in clear for "
                f"{facts['same_labels']} of {facts['asked_images']} images; the largest difference of a "
                f"logit is {facts['largest_logit_difference']:.4f}. One image takes "
                f"{human_seconds(facts['latency_s'])} ({facts['rounds_online']} rounds)."
            )
    return lines


def _same_weights(table: Sequence[RowFigures]) -> list[str]:
    """Whether real services ended with the weights that were computed in one process."""
    first = {figures.row.kind: figures.outcomes[0] for figures in table}
    if not {RowKind.FEDERATED, RowKind.SECURE} <= first.keys():
        return []
    computed, real = (first[kind].arrays["weights"] for kind in (RowKind.FEDERATED, RowKind.SECURE))
    if np.array_equal(computed, real):
        return ["Secure aggregation: real services ended with the weights of the federated row, bit for bit."]
    difference = float(np.abs(computed - real).max())
    return [
        f"Secure aggregation: the largest difference of a weight from the federated row is {difference:.2g}."
    ]


def _auc(figures: RowFigures) -> str:
    spread = "" if figures.auc_sd is None else f" ± {figures.auc_sd:.3f}"
    return f"{figures.auc.estimate:.3f}{spread}"


def _borders(interval: Interval) -> str:
    return f"{interval.low:.3f} to {interval.high:.3f}"


def _against(figures: RowFigures) -> list[str]:
    if figures.against is None:
        return [NOTHING, NOTHING]
    p = figures.against.p
    return [f"{figures.against.difference.estimate:+.3f}", "<0.001" if p < 0.001 else f"{p:.3f}"]


def _seconds(value: float | None) -> str:
    return NOTHING if value is None else human_seconds(value)


def _bytes(value: float | None) -> str:
    return NOTHING if value is None else human_bytes(value)


def _delta(value: float | None) -> str:
    return NOTHING if value is None else f"{value:g}"
