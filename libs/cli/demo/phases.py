"""What takes how long, told while it happens and kept for the summary."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager

from rich.console import Console

from libs.cli.output import human_seconds


class Phases:
    """Seconds per phase, in order."""

    def __init__(self, console: Console) -> None:
        self._console = console
        self.seconds: dict[str, float] = {}

    @contextmanager
    def phase(self, name: str, doing: str) -> Iterator[None]:
        """Announce, time, and tick off. `name` is the key in the summary, `doing` what a person reads."""
        self._console.print(f"[dim]•[/] {doing}")
        started = time.perf_counter()
        yield
        self.seconds[name] = round(time.perf_counter() - started, 3)
        self._console.print(f"  [green]✓[/] [dim]{human_seconds(self.seconds[name])}[/]")
