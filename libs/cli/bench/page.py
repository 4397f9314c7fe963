"""The report of a bench: one HTML file without scripts or anything from elsewhere, a picture, and JSON."""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from html import escape
from importlib import resources
from pathlib import Path
from string import Template

from libs.cli.bench.charts import layer_chart
from libs.cli.bench.figures import Report, precise_seconds, report_rows
from libs.cli.bench.layers import COLUMNS, LayerProfile, by_layer, costliest, in_all, layer_rows, profile_json
from libs.cli.bench.profile import StepProfile
from libs.cli.drawing import alone, style_sheet
from libs.cli.output import human_bytes

DRAWN = 32
"""Layers with a bar of their own; the others share one."""


def write_report(folder: Path, report: Report, steps: Sequence[StepProfile], *, title: str) -> Path:
    """index.html, profile.png, profile.svg and profile.json in `folder`; the page's path."""
    folder.mkdir(parents=True, exist_ok=True)
    layers = by_layer(steps)
    description = f"Bars of time and bytes for each layer of {title}."
    chart = layer_chart(
        costliest(layers, count=DRAWN), description=description, picture=folder / "profile.png"
    )
    (folder / "profile.svg").write_text(alone(chart), encoding="utf-8")
    document = json.dumps({"measured": report, "profile": profile_json(steps)}, indent=2)
    (folder / "profile.json").write_text(document, encoding="utf-8")
    page = folder / "index.html"
    page.write_text(build_page(report, layers, chart=chart, title=title), encoding="utf-8")
    return page


def build_page(report: Report, layers: Sequence[LayerProfile], *, chart: str, title: str) -> str:
    """The page as HTML. Everything that is not markup of ours is escaped."""
    machine = report["machine"]
    texts = {
        "title": title,
        "command": report["command"],
        "machine": f"{machine['cpu']}, {machine['cores']} cores, torch {machine['torch']}",
        "repeat": report["repeat"],
        "agreement": "exactly that" if report["costs_as_declared"] else "NOT that",
    }
    total = in_all(layers, name="in all")
    markup = {
        "style": style_sheet(),
        "chart": chart,
        "tiles": _tiles(report, total),
        "head": "".join(f'<th scope="col">{escape(name.lstrip(">"))}</th>' for name in COLUMNS),
        "rows": _rows(layer_rows([*layers, total])),
        "measured": _rows(report_rows(report)),
    }
    template = resources.files("libs.cli.bench").joinpath("page.html").read_text(encoding="utf-8")
    return Template(template).substitute({name: escape(str(text)) for name, text in texts.items()} | markup)


def _tiles(report: Report, total: LayerProfile) -> str:
    online_s = report["online_median_s"]
    tiles = (
        (precise_seconds(online_s), "online, median"),
        (precise_seconds(total.online_s), "of that work of an evaluator"),
        (precise_seconds(max(0.0, online_s - total.online_s)), "transport and waiting"),
        (precise_seconds(report["offline_median_s"]), "dealt and prepared ahead"),
        (f"{report['rounds']}", "rounds online"),
        (human_bytes(total.online_bytes), "each way online"),
    )
    return "".join(f"<li><strong>{escape(value)}</strong> {escape(name)}</li>" for value, name in tiles)


def _rows(rows: Iterable[Sequence[str]]) -> str:
    lines = []
    for heading, *cells in rows:
        data = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'<tr><th scope="row">{escape(heading)}</th>{data}</tr>\n')
    return "".join(lines)
