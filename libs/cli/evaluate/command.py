"""`trefoil evaluate`: the paper's table on a data set."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from libs.cli.options import JsonOption


def evaluate(
    data: Annotated[
        Path | None,
        typer.Option(
            help="Folder with NORMAL/ and PNEUMONIA/, maybe in train/ and test/, or an .npz file; without "
            "it, made-up X-rays.",
            show_default=False,
        ),
    ] = None,
    output: Annotated[
        Path,
        typer.Option(help="Folder for report and results. The same one again does only what is missing."),
    ] = Path("runs/evaluation"),
    rows: Annotated[
        str,
        typer.Option(
            help="With commas: alone, centralised, federated, skewed, secure, private, encrypted.",
            show_default="all",
        ),
    ] = "",
    hospitals: Annotated[int, typer.Option(min=2, max=16, help="How many hospitals train together.")] = 3,
    model: Annotated[
        str | None, typer.Option(help="Network without privacy; chosen by image size without it.")
    ] = None,
    private_model: Annotated[
        str, typer.Option(help="Network with privacy; it has no BatchNorm.")
    ] = "small_cnn_private",
    size: Annotated[int | None, typer.Option(min=8, max=1024, help="Pixels a side.")] = None,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Training rounds.", show_default="the preset's")
    ] = None,
    private_rounds: Annotated[
        int | None, typer.Option(min=1, max=1000, help="With privacy.", show_default="as --rounds")
    ] = None,
    skew: Annotated[
        list[float] | None,
        typer.Option(
            help="Dirichlet concentration of an uneven division; repeat for more.", show_default="0.5"
        ),
    ] = None,
    epsilons: Annotated[
        str, typer.Option(help="With commas; each is a row with privacy.", show_default="1,2,4,8")
    ] = "",
    delta: Annotated[float, typer.Option(min=1e-12, max=0.01, help="Of every epsilon.")] = 1e-4,
    seed: Annotated[int, typer.Option(min=0, max=2**31, help="Of division, weights and training.")] = 0,
    repeats: Annotated[
        int, typer.Option(min=1, max=100, help="Seeds, from --seed on. The test images stay the same.")
    ] = 1,
    workers: Annotated[
        int | None, typer.Option(min=1, max=64, help="Trainings at a time.", show_default="one for each core")
    ] = None,
    quick: Annotated[
        bool, typer.Option("--quick", help="Fewer images, rounds and epsilons: to see that all works.")
    ] = False,
    phantoms: Annotated[
        int, typer.Option(min=64, max=100_000, help="Made-up images, where there is no --data.")
    ] = 1600,
    as_json: JsonOption = False,
) -> None:
    """The paper's table: each hospital alone, all data in one place, federated, with secrecy, with privacy.

    Rows say AUC with its interval, accuracy, sensitivity, specificity, MCC, calibration, cost. Each is stored
    when it is done: an interrupted run goes on where it was, a changed option redoes what it touches.
    """
    from libs.cli.epsilons import parse_epsilons
    from libs.cli.evaluate.options import EvaluateOptions, RowKind
    from libs.cli.evaluate.run import run_evaluation

    options = EvaluateOptions(
        output=output,
        data=data,
        rows=RowKind.parse(rows.split(",")),
        hospitals=hospitals,
        model=model,
        private_model=private_model,
        size=size,
        rounds=rounds,
        private_rounds=private_rounds,
        skews=tuple(skew or (0.5,)),
        epsilons=parse_epsilons(epsilons) or None,
        delta=delta,
        seed=seed,
        repeats=repeats,
        workers=workers,
        phantoms=phantoms,
        quick=quick,
    )
    run_evaluation(options, as_json=as_json)
