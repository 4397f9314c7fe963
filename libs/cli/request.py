"""`trefoil request`: scientists and clinicians ask for access to data sets."""

from __future__ import annotations

import typer

from libs.cli import request_create

app = typer.Typer(help="Ask for access to data sets.", no_args_is_help=True)

app.command()(request_create.create)
app.command()(request_create.status)
