"""The curves of the page."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_curve

from libs.cli.drawing import DASHES, SERIES, SOFT, STYLE, to_svg
from libs.fl.metrics import RoundMetrics


def roc_chart(
    curves: Mapping[str, npt.NDArray[np.float64]], labels: npt.NDArray[np.int64], *, description: str
) -> str:
    """ROC curves by name; each value holds probabilities of pneumonia (N,)."""
    with mpl.rc_context(STYLE):
        figure, axes = _figure()
        axes.plot([0, 1], [0, 1], color=SOFT, linewidth=1)
        for (name, probabilities), colour, dash in zip(curves.items(), SERIES, DASHES, strict=False):
            false_positives, true_positives, _ = roc_curve(labels, probabilities)
            axes.plot(false_positives, true_positives, dash, color=colour, label=name, linewidth=2)
        axes.set_xlabel("1 - specificity")
        axes.set_ylabel("sensitivity")
        axes.set_aspect("equal")
        axes.legend(loc="lower right")
        return to_svg(figure, description)


def training_chart(metrics: Sequence[RoundMetrics], *, description: str) -> str:
    """Losses and validation AUC over the rounds."""
    rounds = range(1, len(metrics) + 1)
    with mpl.rc_context(STYLE):
        figure, axes = _figure()
        losses = {
            "training loss": [_or_nan(m.train_loss) for m in metrics],
            "validation loss": [_or_nan(m.validation_loss) for m in metrics],
        }
        for (name, values), colour, dash in zip(losses.items(), SERIES, DASHES, strict=False):
            axes.plot(rounds, values, dash, color=colour, label=name, linewidth=2, marker="o", markersize=3)
        axes.set_xlabel("round")
        axes.set_ylabel("loss")
        axes.set_ylim(bottom=0)
        right = axes.twinx()
        right.spines["right"].set_visible(True)
        areas = [_or_nan(m.auc) for m in metrics]
        right.plot(rounds, areas, DASHES[2], color=SERIES[2], label="validation AUC", linewidth=2)
        right.set_ylabel("AUC")
        right.set_ylim(top=1.0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        lines = [*axes.get_lines(), *right.get_lines()]
        figure.legend(lines, [str(line.get_label()) for line in lines], loc="outside lower center", ncols=3)
        return to_svg(figure, description)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.4, 4.2), layout="constrained")
    return figure, figure.add_subplot()


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value
