"""Where the results of a run go: `runs/<time>/`, and `runs/latest` pointing at the last one."""

from __future__ import annotations

import json
import os
import secrets
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from typing import Any


def new_run_folder(output: Path, now: datetime) -> Path:
    """A new `<output>/<time>`; demos that start in the same second get different ones."""
    output.mkdir(parents=True, exist_ok=True)
    name = now.strftime("%Y%m%d-%H%M%S")
    for suffix in ("", *(f"-{number}" for number in range(2, 1000))):
        folder = output / f"{name}{suffix}"
        try:
            folder.mkdir(mode=0o700)
        except FileExistsError:
            continue
        return folder
    raise FileExistsError(f"{output} has too many runs of this second")


def write_results(folder: Path, *, summary: dict[str, Any], page: str) -> None:
    """Write summary.json and index.html, then let `latest` point at them."""
    (folder / "summary.json").write_text(json.dumps(summary, indent=2) + "\n", encoding="utf-8")
    (folder / "index.html").write_text(page, encoding="utf-8")
    point_latest_at(folder)


def point_latest_at(folder: Path) -> None:
    """Swap the link in one step, so that a reader finds the old run or the new one, never neither."""
    link = folder.parent / f".latest-{secrets.token_hex(4)}"
    link.symlink_to(folder.name)
    os.replace(link, folder.parent / "latest")  # noqa: PTH105 - says more plainly that it is atomic


@contextmanager
def federation_folder(run: Path, *, keep: bool) -> Iterator[Path]:
    """Where the processes keep their files. However it ends, only their logs stay, in `run`/logs.

    The rest is keys, databases, shares and the hospitals' images; `keep` leaves everything where it is.
    """
    folder = run / "federation"
    try:
        yield folder
    finally:
        if not keep and folder.exists():
            try:
                _move_logs(folder, run / "logs")
            finally:
                shutil.rmtree(folder)


def _move_logs(federation: Path, logs: Path) -> None:
    logs.mkdir(exist_ok=True)
    for log in sorted(federation.glob("*/log.jsonl")):
        log.rename(logs / f"{log.parent.name}.jsonl")
