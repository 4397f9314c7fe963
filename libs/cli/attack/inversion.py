"""`trefoil attack inversion`: X-rays from an update."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from libs.cli.attack.options import DataOption, OutputOption, QuickOption, SeedOption, SizeOption
from libs.cli.options import JsonOption

QUICK_ITERATIONS = 60


def inversion(
    data: DataOption = None,
    images: Annotated[int, typer.Option(min=1, max=8, help="Images that each hospital trains on.")] = 4,
    hospitals: Annotated[int, typer.Option(min=2, max=8, help="Hospitals in the sum.")] = 3,
    model: Annotated[str, typer.Option(help="Architecture; small_cnn has BatchNorm.")] = "small_cnn",
    private_model: Annotated[
        str, typer.Option(help="Architecture of the rows with noise, which cannot have BatchNorm.")
    ] = "small_cnn_private",
    epsilons: Annotated[
        str, typer.Option(help="Epsilons of DP-SGD, with commas between them; empty for none.")
    ] = "1,8,1000",
    delta: Annotated[float, typer.Option(help="Delta of DP-SGD.")] = 1e-4,
    local_steps: Annotated[int, typer.Option(min=1, max=16, help="Steps of SGD within the round.")] = 1,
    iterations: Annotated[int, typer.Option(min=1, max=100_000, help="How long the attacker tries.")] = 2000,
    restarts: Annotated[int, typer.Option(min=1, max=20, help="Runs, of which the best-fitting counts.")] = 1,
    size: SizeOption = 28,
    seed: SeedOption = 0,
    output: OutputOption = Path("runs"),
    quick: QuickOption = False,
    as_json: JsonOption = False,
) -> None:
    """Reconstruct X-rays from what one hospital sends after a round of training.

    The same attack runs on the update in clear, as a server without secure aggregation sees it; on the share
    that one of our parties holds; on the sum over all hospitals, which readers of a study open; and on
    updates of DP-SGD. It is made easy for the attacker: few images, plain SGD, weights as drawn. Pictures
    side by side go to a page, figures to summary.json beside it.
    """
    from libs.cli.attack.inversion_results import show, write
    from libs.cli.attack.options import load_images
    from libs.cli.attack.progress import bars
    from libs.cli.epsilons import parse_epsilons
    from libs.cli.output import remarks
    from libs.fl.attacks.inversion import Effort
    from libs.fl.attacks.inversion_trial import Trial, cast, run
    from libs.fl.attacks.local_update import LocalSteps

    trial = Trial(
        images=images,
        hospitals=hospitals,
        model=model,
        private_model=private_model,
        epsilons=parse_epsilons(epsilons),
        delta=delta,
        steps=LocalSteps(count=local_steps),
        effort=Effort(iterations=QUICK_ITERATIONS if quick else iterations, restarts=restarts),
        seed=seed,
    )
    source, _, pool = load_images(data, size=size, seed=seed)
    who = cast(pool, trial)
    started = time.process_time()
    with bars(remarks()) as tell:
        outcomes = list(run(who, trial, on_progress=tell))
    seconds = time.process_time() - started
    folder = write(output, source=source, who=who, trial=trial, outcomes=outcomes, cpu_s=seconds)
    show(folder, as_json=as_json)
