"""The page of an evaluation: one HTML file in the style of the demo's, with nothing from elsewhere."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from importlib import resources
from string import Template

from libs.cli.drawing import style_sheet
from libs.cli.evaluate.figures import RowFigures
from libs.cli.evaluate.options import RowKind
from libs.cli.evaluate.report import Report, plan_lines, texts
from libs.cli.evaluate.tables import (
    COST_COLUMNS,
    ERROR_COLUMNS,
    QUALITY_COLUMNS,
    agreement_lines,
    cost_rows,
    error_rows,
    quality_rows,
)

_CAPTIONS = {
    "intervals": "AUC of every row with its interval; the dotted line is all data in one place.",
    "roc": "ROC on the test images.",
    "reliability": "Reliability: a probability that means what it says lies on the diagonal. "
    "Larger points are of more images.",
    "auc_by_epsilon": "What privacy costs: AUC by epsilon.",
}
_MARKED = (RowKind.FEDERATED, RowKind.SECURE)


def build_page(report: Report, charts: Mapping[str, str]) -> str:
    """The page as HTML. Everything that is not markup of ours is escaped."""
    table = report.table
    markup = {
        "style": style_sheet(),
        "tiles": _tiles(table),
        "intervals": _figure("intervals", charts),
        "charts": "\n".join(_figure(name, charts) for name in charts if name != "intervals"),
        "quality": _table(QUALITY_COLUMNS, quality_rows(table), table),
        "cost": _table(COST_COLUMNS, cost_rows(table), table),
        "errors": _table(ERROR_COLUMNS, error_rows(table), table),
        "agreement": "".join(f"<p>{escape(line)}</p>" for line in agreement_lines(table)),
        "plans": "".join(f"<li>{escape(line.replace('`', ''))}</li>" for line in plan_lines(table)),
    }
    template = resources.files("libs.cli.evaluate").joinpath("page.html").read_text(encoding="utf-8")
    return Template(template).substitute(
        {name: escape(text) for name, text in texts(report).items()} | markup
    )


def _figure(name: str, charts: Mapping[str, str]) -> str:
    return f"<figure>{charts[name]}<figcaption>{escape(_CAPTIONS[name])}</figcaption></figure>"


def _tiles(table: Sequence[RowFigures]) -> str:
    names = {
        RowKind.CENTRALISED: "AUC with all data in one place",
        RowKind.FEDERATED: "AUC federated",
        RowKind.SECURE: "AUC with secure aggregation",
        RowKind.PRIVATE: "AUC with epsilon",
        RowKind.ENCRYPTED: "AUC asked under encryption",
    }
    tiles = []
    for kind, name in names.items():
        chosen = [figures for figures in table if figures.row.kind is kind]
        if chosen:
            # Of privacy the weakest, of encrypted rows the one that was trained without it.
            figures = chosen[-1] if kind is RowKind.PRIVATE else chosen[0]
            words = f"{name} {figures.row.epsilon:g}" if kind is RowKind.PRIVATE else name
            tiles.append((f"{figures.auc.estimate:.3f}", words))
    return "".join(f"<li><strong>{escape(value)}</strong> {escape(name)}</li>" for value, name in tiles)


def _table(columns: Iterable[str], rows: Sequence[Sequence[str]], table: Sequence[RowFigures]) -> str:
    head = "".join(f'<th scope="col">{escape(name.lstrip(">"))}</th>' for name in columns)
    lines = []
    for (heading, *cells), figures in zip(rows, table, strict=True):
        opening = '<tr class="main">' if figures.row.kind in _MARKED else "<tr>"
        data = "".join(f"<td>{escape(cell)}</td>" for cell in cells)
        lines.append(f'{opening}<th scope="row">{escape(heading)}</th>{data}</tr>\n')
    return f"<thead><tr>{head}</tr></thead>\n<tbody>\n{''.join(lines)}</tbody>"
