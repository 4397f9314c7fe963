"""The curves of the page, as SVG text whose colours are CSS variables, so that they follow light and dark."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib as mpl
import numpy as np
import numpy.typing as npt
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator
from sklearn.metrics import roc_curve

from libs.fl.metrics import RoundMetrics

# matplotlib draws with these; in the SVG each becomes the variable, which the page's style sheet defines.
_INK, _SOFT = "#010101", "#020202"
_SERIES = ("#030303", "#040404", "#050505", "#060606")
_VARIABLES = {
    _INK: "--ink",
    _SOFT: "--line",
    **{colour: f"--series-{number}" for number, colour in enumerate(_SERIES, start=1)},
}
_DASHES = ("-", "--", "-.", ":")  # told apart without colours, too

_STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, and takes the page's font
    "svg.hashsalt": "trefoil",  # the same ids in every run
    "font.size": 11,
    "axes.edgecolor": _SOFT,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def roc_chart(
    curves: Mapping[str, npt.NDArray[np.float64]], labels: npt.NDArray[np.int64], *, description: str
) -> str:
    """ROC curves by name; each value holds probabilities of pneumonia (N,)."""
    with mpl.rc_context(_STYLE):
        figure, axes = _figure()
        axes.plot([0, 1], [0, 1], color=_SOFT, linewidth=1)
        for (name, probabilities), colour, dash in zip(curves.items(), _SERIES, _DASHES, strict=False):
            false_positives, true_positives, _ = roc_curve(labels, probabilities)
            axes.plot(false_positives, true_positives, dash, color=colour, label=name, linewidth=2)
        axes.set_xlabel("1 - specificity")
        axes.set_ylabel("sensitivity")
        axes.set_aspect("equal")
        axes.legend(loc="lower right")
        return _to_svg(figure, description)


def training_chart(metrics: Sequence[RoundMetrics], *, description: str) -> str:
    """Losses and validation AUC over the rounds."""
    rounds = range(1, len(metrics) + 1)
    with mpl.rc_context(_STYLE):
        figure, axes = _figure()
        losses = {
            "training loss": [_or_nan(m.train_loss) for m in metrics],
            "validation loss": [_or_nan(m.validation_loss) for m in metrics],
        }
        for (name, values), colour, dash in zip(losses.items(), _SERIES, _DASHES, strict=False):
            axes.plot(rounds, values, dash, color=colour, label=name, linewidth=2, marker="o", markersize=3)
        axes.set_xlabel("round")
        axes.set_ylabel("loss")
        axes.set_ylim(bottom=0)
        right = axes.twinx()
        right.spines["right"].set_visible(True)
        areas = [_or_nan(m.auc) for m in metrics]
        right.plot(rounds, areas, _DASHES[2], color=_SERIES[2], label="validation AUC", linewidth=2)
        right.set_ylabel("AUC")
        right.set_ylim(top=1.0)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        lines = [*axes.get_lines(), *right.get_lines()]
        figure.legend(lines, [str(line.get_label()) for line in lines], loc="outside lower center", ncols=3)
        return _to_svg(figure, description)


def _figure() -> tuple[Figure, Axes]:
    figure = Figure(figsize=(5.4, 4.2), layout="constrained")
    return figure, figure.add_subplot()


def _or_nan(value: float | None) -> float:
    return float("nan") if value is None else value


def _to_svg(figure: Figure, description: str) -> str:
    """The figure as an <svg> element, with a description for those who do not see it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    opening = f'<svg role="img" aria-label="{description}" '
    return svg.replace("<svg ", opening, 1)
