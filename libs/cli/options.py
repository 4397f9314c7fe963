"""Options that many commands share, so that they look the same everywhere."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

ProfileOption = Annotated[
    Path,
    typer.Option(
        "--profile",
        "-p",
        envvar="TREFOIL_PROFILE",
        help="TOML file with who you are and where the coordinator is.",
        show_default=False,
    ),
]
RequestIdOption = Annotated[
    str,
    typer.Option(
        "--request-id",
        help="Repeat a command with the id of the first try, and nothing is done twice.",
        show_default="a new one",
    ),
]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for machines.")]
TagsOption = Annotated[
    list[str] | None, typer.Option("--tag", "-t", help="A tag; repeat for more.", show_default=False)
]
