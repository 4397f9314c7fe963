"""Starting a service in the foreground: `trefoil party serve` becomes `python -m services.smpc_party`."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Annotated, NoReturn

import typer

from libs.core.errors import InvalidInput

ConfigOption = Annotated[
    Path, typer.Option("--config", "-c", help="The service's settings file (TOML).", show_default=False)
]
KeysOption = Annotated[
    str, typer.Option("--keys", help="Folder of this service's keys, as seen from the settings file.")
]


def become(module: str, config: Path) -> NoReturn:
    """Replace this process by the service, so that signals and the exit code are the service's own."""
    if not config.is_file():
        raise InvalidInput(
            f"There is no settings file {config}. The `config` command next to this one writes one."
        )
    sys.stdout.flush()
    os.execv(sys.executable, [sys.executable, "-m", module, "--config", str(config)])  # noqa: S606 - no shell
