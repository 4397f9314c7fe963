"""What an attack prints when it is done: its summary for machines, or a table and a sentence a row."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import Any

from libs.cli.output import print_json, print_table, remarks

Verdicts = Callable[[dict[str, Any]], Iterable[tuple[str, str]]]
"""From a summary: of what, and what is to be said of it."""


def show_summary(
    folder: Path, *, as_json: bool, columns: Sequence[str], title: str, verdicts: Verdicts
) -> None:
    """The folder's summary.json as a table, or as it is; and where the page lies."""
    summary = json.loads((folder / "summary.json").read_text(encoding="utf-8"))
    if as_json:
        print_json(summary)
        return
    print_table(columns, summary["table"], title=title, if_empty="")
    for name, verdict in verdicts(summary):
        remarks().print(f"{name}: {verdict}", markup=False)
    remarks().print(f"Page: {folder / 'index.html'}", markup=False)
