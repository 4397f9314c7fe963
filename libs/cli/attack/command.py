"""The sub-commands, put together."""

from __future__ import annotations

import typer

from libs.cli.attack.contributions import contributions
from libs.cli.attack.inversion import inversion
from libs.cli.attack.membership import membership

app = typer.Typer(
    help="Attack what Trefoil sends and trains, on this machine: on privacy and on the model.",
    no_args_is_help=True,
)

app.command()(inversion)
app.command()(membership)
app.command()(contributions)
