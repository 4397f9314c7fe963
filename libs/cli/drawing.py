"""Figures as SVG text whose colours are CSS variables, so that they follow light and dark; the pages' CSS."""

from __future__ import annotations

import io
from html import escape
from importlib import resources
from typing import Any

from matplotlib.figure import Figure

# matplotlib draws with these; in the SVG each becomes the variable, which the page's style sheet defines.
INK, SOFT = "#010101", "#020202"
SERIES = ("#030303", "#040404", "#050505", "#060606")
_VARIABLES = {
    INK: "--ink",
    SOFT: "--line",
    **{colour: f"--series-{number}" for number, colour in enumerate(SERIES, start=1)},
}
PICTURE_SERIES, PICTURE_SOFT = ("#1f6f5c", "#b4561d", "#3a5fa8", "#7a7f87"), "#d6d9dc"
"""The same for a PNG, which cannot follow a page: those of page.css in light."""
DASHES = ("-", "--", "-.", ":")  # told apart without colours, too

STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be read aloud, and takes the page's font
    "svg.hashsalt": "trefoil",  # the same ids in every run
    "font.size": 11,
    "axes.edgecolor": SOFT,
    "axes.labelcolor": INK,
    "text.color": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
}


def to_svg(figure: Figure, description: str) -> str:
    """The figure as an <svg> element, with a description for those who do not see it."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", transparent=True, metadata={"Date": None, "Creator": None})
    svg = buffer.getvalue()
    svg = svg[svg.index("<svg") :]
    for colour, variable in _VARIABLES.items():
        svg = svg.replace(colour, f"var({variable})")
    opening = f'<svg role="img" aria-label="{escape(description)}" '
    return svg.replace("<svg ", opening, 1)


def alone(svg: str) -> str:
    """An <svg> of `to_svg` as a file of its own: the light colours come along."""
    opening, _, rest = svg.partition(">")
    light = style_sheet().partition("}")[0] + "}"  # the first rule
    return f"{opening}><style>{light}</style>{rest}"


def style_sheet() -> str:
    """The CSS of every page, which defines the figures' colours."""
    return resources.files("libs.cli").joinpath("page.css").read_text(encoding="utf-8")
