"""What commands print: a table for people, JSON for machines.

stdout holds results, stderr everything else.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from rich.console import Console
    from rich.table import Table


_PIPED_WIDTH = 160
"""Columns when nobody watches: wide enough that ids are not cut, which somebody may want to copy or grep."""


def results() -> Console:
    """Where results go (stdout)."""
    from rich.console import Console

    console = Console(highlight=False)
    if not console.is_terminal:
        console.width = _PIPED_WIDTH
    return console


def remarks() -> Console:
    """Where progress and explanations go (stderr), so that `--json | jq` keeps working."""
    from rich.console import Console

    return Console(stderr=True, highlight=False)


def print_json(value: Any) -> None:
    """One JSON document on stdout. Dates become ISO 8601."""
    print(json.dumps(value, indent=2, ensure_ascii=False, default=_encode))


def _encode(value: object) -> object:
    if isinstance(value, datetime):
        return value.isoformat()
    raise TypeError(f"{type(value).__name__} has no JSON form")


def make_table(columns: Sequence[str], rows: Iterable[Sequence[object]], *, title: str = "") -> Table:
    """A Rich table. A heading that starts with `>` makes its column right-aligned (numbers), with `!` one
    that is never broken into lines (what people copy).
    """
    from rich import box
    from rich.table import Table

    table = Table(title=title or None, box=box.SIMPLE_HEAD, title_justify="left", title_style="bold")
    for column in columns:
        table.add_column(
            column.lstrip(">!"),
            justify="right" if column.startswith(">") else "left",
            overflow="fold",
            no_wrap=column.startswith("!"),
        )
    for row in rows:
        table.add_row(*[plain(cell) for cell in row])
    return table


def print_table(
    columns: Sequence[str], rows: Sequence[Sequence[object]], *, title: str = "", if_empty: str
) -> None:
    """Print the table, or a sentence that says what to do when there is nothing to list."""
    if rows:
        results().print(make_table(columns, rows, title=title))
    else:
        remarks().print(if_empty, markup=False)


def human_bytes(count: float) -> str:
    """1536 -> '1.5 KiB'."""
    for unit in ("B", "KiB", "MiB"):
        if count < 1024:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1024
    return f"{count:.1f} GiB"


def human_seconds(seconds: float) -> str:
    """0.0123 -> '12 ms', 75 -> '1 min 15 s'."""
    if seconds < 1:
        return f"{seconds * 1000:.0f} ms"
    if seconds < 60:
        return f"{seconds:.1f} s"
    return f"{int(seconds // 60)} min {int(seconds % 60)} s"


def human_moment(moment: datetime | str) -> str:
    """'2026-11-24T23:26:43.708652Z' -> '2026-11-24 23:26 UTC'. What comes without a zone is in UTC."""
    if isinstance(moment, str):
        moment = datetime.fromisoformat(moment)
    moment = moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
    return f"{moment:%Y-%m-%d %H:%M} UTC"


def short_identity(identity: str) -> str:
    """'spiffe://trefoil.local/client/ada (ada)' -> 'client/ada'. Other texts, and other subjects, stay."""
    from libs.rpc.identity import TRUST_DOMAIN

    name = identity.removeprefix(f"spiffe://{TRUST_DOMAIN}/")
    return re.sub(r"^(client|hospital)/([^ /]+) \(\2\)$", r"\1/\2", name)


def plain(text: object) -> str:
    """What somebody else wrote, without effect on the terminal: no Rich markup, no control characters."""
    from rich.markup import escape

    shown = (
        char if char.isprintable() or char == "\n" else "\N{REPLACEMENT CHARACTER}" for char in str(text)
    )
    return escape("".join(shown))
