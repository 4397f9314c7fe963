"""The pictures of an evaluation: intervals, ROC, reliability, AUC by epsilon."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from sklearn.metrics import roc_curve

from libs.cli.drawing import DASHES, PICTURE_SERIES, PICTURE_SOFT, SERIES, SOFT, STYLE, alone, to_svg
from libs.cli.evaluate.figures import RowFigures
from libs.cli.evaluate.options import RowKind
from libs.data.imageset import ImageSet

_SQUARE = (5.4, 5.4)
_ROW_INCHES = 0.32
_DOTS_PER_INCH = 130
_COLOUR_OF = {
    RowKind.FEDERATED: 0,
    RowKind.SECURE: 0,
    RowKind.ENCRYPTED: 0,
    RowKind.CENTRALISED: 1,
    RowKind.PRIVATE: 2,
    RowKind.SKEWED: 3,
    RowKind.ALONE: 3,
}
"""The place in a palette, in every picture. What was trained with privacy keeps that colour when asked."""


@dataclass(frozen=True)
class _Palette:
    """Colours of lines, and of what stands behind them."""

    series: tuple[str, ...]
    soft: str

    def of(self, figures: RowFigures) -> str:
        return self.series[_place(figures)]


_PAGE, _PICTURE = _Palette(SERIES, SOFT), _Palette(PICTURE_SERIES, PICTURE_SOFT)


def draw_all(table: Sequence[RowFigures], test: ImageSet, folder: Path) -> dict[str, str]:
    """Name -> <svg> for the page; `<name>.svg` and `<name>.png` are written to `folder` as well."""
    curves = choose_curves(table)
    charts: dict[str, tuple[Callable[[_Palette], Figure], str]] = {
        "intervals": (lambda colours: _intervals(table, colours), "AUC of every row with its 95 % interval."),
        "roc": (
            lambda colours: _roc(curves, test, colours),
            "ROC curves on the test images: " + _areas(curves),
        ),
        "reliability": (
            lambda colours: _reliability(curves, colours),
            "Observed fraction of pneumonia by predicted probability.",
        ),
    }
    if any(figures.row.kind is RowKind.PRIVATE for figures in table):
        charts["auc_by_epsilon"] = (
            lambda colours: _by_epsilon(table, colours),
            "AUC by epsilon, with 95 % intervals.",
        )
    drawn = {}
    for name, (draw, description) in charts.items():
        with mpl.rc_context(STYLE):
            drawn[name] = to_svg(draw(_PAGE), description)
        (folder / f"{name}.svg").write_text(alone(drawn[name]), encoding="utf-8")
        with mpl.rc_context(STYLE | {"axes.edgecolor": PICTURE_SERIES[-1]}):
            draw(_PICTURE).savefig(folder / f"{name}.png", dpi=_DOTS_PER_INCH, metadata={"Software": None})
    return drawn


def choose_curves(table: Sequence[RowFigures]) -> list[RowFigures]:
    """Rows of different colours: of privacy the largest epsilon, of skewed divisions the last."""
    last_of = {figures.row.kind: figures for figures in table}
    if RowKind.SECURE in last_of:
        last_of.pop(RowKind.FEDERATED, None)  # the same curve
    if RowKind.SKEWED in last_of:
        last_of.pop(RowKind.ALONE, None)
    last_of.pop(RowKind.ENCRYPTED, None)
    return list(last_of.values())


def _areas(curves: Sequence[RowFigures]) -> str:
    return ", ".join(f"{figures.row.title} {figures.auc.estimate:.3f}" for figures in curves) + "."


def _figure(size: tuple[float, float] = _SQUARE) -> tuple[Figure, Axes]:
    figure = Figure(figsize=size, layout="constrained")
    return figure, figure.add_subplot()


def _intervals(table: Sequence[RowFigures], colours: _Palette) -> Figure:
    figure, axes = _figure((8.6, 0.9 + _ROW_INCHES * len(table)))
    for place, figures in enumerate(table):
        colour = colours.of(figures)
        axes.plot([figures.auc.low, figures.auc.high], [place, place], color=colour, linewidth=2)
        axes.plot([figures.auc.estimate], [place], "o", color=colour, markersize=6)
        if figures.row.kind is RowKind.CENTRALISED:
            axes.axvline(figures.auc.estimate, color=colour, linewidth=1, linestyle=":")
    axes.set_yticks(range(len(table)), [figures.row.title for figures in table])
    axes.invert_yaxis()
    axes.set_xlabel("AUC, 95 % interval")
    return figure


def _roc(curves: Sequence[RowFigures], test: ImageSet, colours: _Palette) -> Figure:
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color=colours.soft, linewidth=1)
    for figures in curves:
        colour, dash = colours.of(figures), DASHES[_place(figures)]
        false_positives, true_positives, _ = roc_curve(test.labels, figures.probabilities)
        axes.plot(false_positives, true_positives, dash, color=colour, label=_short(figures), linewidth=2)
    axes.set_xlabel("1 - specificity")
    axes.set_ylabel("sensitivity")
    axes.set_aspect("equal")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _reliability(curves: Sequence[RowFigures], colours: _Palette) -> Figure:
    figure, axes = _figure()
    axes.plot([0, 1], [0, 1], color=colours.soft, linewidth=1)
    for figures in curves:
        colour, dash = colours.of(figures), DASHES[_place(figures)]
        bins = figures.reliability.bins
        axes.plot(
            [part.predicted for part in bins],
            [part.observed for part in bins],
            dash,
            color=colour,
            label=_short(figures),
            linewidth=2,
        )
        # The more images, the larger the point.
        sizes = 6 + 130 * np.array([part.images for part in bins]) / sum(part.images for part in bins)
        axes.scatter([p.predicted for p in bins], [p.observed for p in bins], s=sizes, color=colour)
    axes.set_xlabel("predicted probability of pneumonia")
    axes.set_ylabel("observed fraction with pneumonia")
    axes.set_aspect("equal")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _by_epsilon(table: Sequence[RowFigures], colours: _Palette) -> Figure:
    figure, axes = _figure()
    private = [figures for figures in table if figures.row.kind is RowKind.PRIVATE]
    epsilons = [figures.row.epsilon or 0.0 for figures in private]
    aucs = [figures.auc.estimate for figures in private]
    errors = [
        [figures.auc.estimate - figures.auc.low for figures in private],
        [figures.auc.high - figures.auc.estimate for figures in private],
    ]
    for figures in table:
        if figures.row.kind in (RowKind.CENTRALISED, RowKind.FEDERATED):
            dash = DASHES[_place(figures)]
            axes.axhline(
                figures.auc.estimate, color=colours.of(figures), linestyle=dash, label=figures.row.title
            )
    axes.errorbar(
        epsilons,
        aucs,
        yerr=errors,
        fmt="o-",
        color=colours.of(private[0]),
        capsize=4,
        label="with privacy",
        linewidth=2,
    )
    axes.set_xscale("log", base=2)
    axes.set_xticks(epsilons, [f"{epsilon:g}" for epsilon in epsilons])
    axes.minorticks_off()
    axes.set_xlim(min(epsilons) / 1.5, max(epsilons) * 1.5)
    axes.set_xlabel("epsilon of one image (target)")
    axes.set_ylabel("AUC, 95 % interval")
    figure.legend(loc="outside lower center", ncols=2)
    return figure


def _place(figures: RowFigures) -> int:
    kind = RowKind.PRIVATE if figures.row.epsilon is not None else figures.row.kind
    return _COLOUR_OF[kind]


def _short(figures: RowFigures) -> str:
    return figures.row.title.removeprefix("+ ")
