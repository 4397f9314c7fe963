"""`trefoil demo`: the whole journey on this machine."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from libs.cli.options import JsonOption


def demo(
    data: Annotated[
        Path | None,
        typer.Option(help="Folder with NORMAL/ and PNEUMONIA/, or an .npz file; without it, made-up X-rays."),
    ] = None,
    hospitals: Annotated[int, typer.Option(min=2, max=16, help="How many hospitals train together.")] = 3,
    rounds: Annotated[int | None, typer.Option(min=1, max=1000, help="Training rounds.")] = None,
    model: Annotated[
        str | None, typer.Option(help="small_cnn, medium_cnn or resnet18; chosen by image size without it.")
    ] = None,
    size: Annotated[int | None, typer.Option(min=8, max=1024, help="Pixels a side.")] = None,
    skew: Annotated[
        float | None, typer.Option(min=0.0, help="Dirichlet concentration of an uneven partition, e.g. 0.5.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same summary but for times.")] = 0,
    output: Annotated[Path, typer.Option(help="Folder for the results of all runs.")] = Path("runs"),
    keep: Annotated[bool, typer.Option(help="Keep keys, databases and shares of the processes.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Train with three hospitals and ask the model, through seven processes on this machine."""
    from libs.cli.demo.options import DemoOptions
    from libs.cli.demo.run import run_demo

    options = DemoOptions(
        data=data,
        hospitals=hospitals,
        rounds=rounds,
        model=model,
        size=size,
        skew=skew,
        seed=seed,
        output=output,
        keep=keep,
    )
    run_demo(options, as_json=as_json)
