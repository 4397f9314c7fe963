"""One bar for each thing that is attacked or trained; a line each where nobody watches."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

Tell = Callable[[str, float], None]
"""Hears what is going on and the fraction done, 0 to 1."""


@contextmanager
def bars(console: Console) -> Iterator[Tell]:
    """A function that moves the bar of that name, which appears with its first news."""
    columns = (
        TextColumn("{task.description}"),
        BarColumn(bar_width=28),
        TextColumn("{task.percentage:>3.0f}%", style="dim"),
        TimeElapsedColumn(),
    )
    tasks: dict[str, TaskID] = {}
    finished: set[str] = set()
    with Progress(*columns, console=console, disable=not console.is_terminal) as progress:

        def tell(what: str, fraction: float) -> None:
            if what not in tasks:
                tasks[what] = progress.add_task(what, total=1.0)
            progress.update(tasks[what], completed=fraction)
            if fraction >= 1 and what not in finished:
                finished.add(what)
                if not console.is_terminal:
                    console.print(f"  {what}: done", markup=False)

        yield tell
