"""The sub-commands, put together."""

from __future__ import annotations

import typer

from libs.cli.bench.aggregate import aggregate
from libs.cli.bench.catalogue import catalogue
from libs.cli.bench.inference import inference
from libs.cli.bench.logins import logins
from libs.cli.bench.matmul import matmul
from libs.cli.bench.primitives import primitives
from libs.cli.bench.private_training import private_training
from libs.cli.bench.relu import relu

app = typer.Typer(
    help="Measure on this machine: coordinator and three parties as real processes, linked by mutual TLS.",
    no_args_is_help=True,
)

app.command()(inference)
app.command()(relu)
app.command()(matmul)
app.command()(primitives)
app.command()(catalogue)
app.command()(logins)
app.command()(aggregate)
app.command()(private_training)
