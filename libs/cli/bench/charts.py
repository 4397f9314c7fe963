"""Time and bytes by layer as bars."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from libs.cli.bench.layers import GROUPS, LayerProfile
from libs.cli.drawing import PICTURE_SERIES, SERIES, STYLE, to_svg

_MIB = 2**20
_BAR_INCHES = 0.24


def layer_chart(layers: Sequence[LayerProfile], *, description: str, picture: Path | None = None) -> str:
    """An SVG with four columns of bars, the first layer on top. `picture`: where a PNG of it goes."""
    if picture is not None:
        with mpl.rc_context():  # its own colours, for a picture cannot follow the page's
            _draw(layers, colours=PICTURE_SERIES).savefig(picture, dpi=130)
    with mpl.rc_context(STYLE):
        return to_svg(_draw(layers, colours=SERIES), description)


def _draw(layers: Sequence[LayerProfile], *, colours: Sequence[str]) -> Figure:
    figure = Figure(figsize=(13, 1.4 + _BAR_INCHES * len(layers)), layout="constrained")
    online, sent, offline, dealt = figure.subplots(1, 4, sharey=True, width_ratios=(3, 2, 2, 2))
    online_s = {group: [layer.online_s_by_group[group] * 1000 for layer in layers] for group in GROUPS}
    offline_s = {
        "dealing": [layer.deal_s * 1000 for layer in layers],
        "preparing": [layer.prepare_s * 1000 for layer in layers],
    }
    _bars(online, online_s, colours, "online, ms of an evaluator")
    _bars(sent, {"": [layer.online_bytes / _MIB for layer in layers]}, colours, "online, MiB each way")
    _bars(offline, offline_s, colours, "ahead, ms")
    _bars(dealt, {"": [layer.dealt_bytes / _MIB for layer in layers]}, colours, "ahead, MiB dealt")
    online.set_yticks(range(len(layers)), [layer.name for layer in layers])
    online.invert_yaxis()
    online.legend(loc="best")
    offline.legend(loc="best")
    return figure


def _bars(axes: Axes, parts: dict[str, list[float]], colours: Sequence[str], label: str) -> None:
    """Stacked horizontal bars, one row per layer."""
    left = [0.0] * len(next(iter(parts.values())))
    for (name, widths), colour in zip(parts.items(), colours, strict=False):
        axes.barh(range(len(widths)), widths, left=left, color=colour, label=name or None, height=0.7)
        left = [a + b for a, b in zip(left, widths, strict=True)]
    axes.set_xlim(0, max(left) * 1.05 or 1)
    axes.margins(y=0.01)
    axes.set_xlabel(label)
