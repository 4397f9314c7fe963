"""`trefoil attack contributions`: one malicious hospital."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from libs.cli.attack.options import DataOption, OutputOption, QuickOption, SeedOption, SizeOption
from libs.cli.options import JsonOption


def contributions(
    data: DataOption = None,
    hospitals: Annotated[int, typer.Option(min=3, max=5, help="Hospitals, one of them malicious.")] = 3,
    images: Annotated[int, typer.Option(min=60, help="Images of all hospitals together, at most.")] = 1200,
    rounds: Annotated[int, typer.Option(min=2, max=1000, help="Training rounds.")] = 6,
    model: Annotated[str, typer.Option(help="Architecture.")] = "small_cnn",
    attack: Annotated[
        list[str] | None, typer.Option(help="Only this attack; repeat for more.", show_default="all")
    ] = None,
    size: SizeOption = 28,
    seed: SeedOption = 0,
    output: OutputOption = Path("runs"),
    quick: QuickOption = False,
    as_json: JsonOption = False,
) -> None:
    """Let one hospital spoil the model, with and without the check of norms.

    Studies are held in one process, with the check in the clear. Its bound is 1.5 times the longest update of
    a pilot study without attackers, one for the first round and one for all others. The check bounds how far
    one hospital moves the model in a round. It does not look at what a contribution does: wrong labels and
    backdoors of ordinary length pass, and the table says what they do.
    """
    from libs.cli.attack.contributions_results import show, write
    from libs.cli.attack.options import load_images
    from libs.cli.attack.progress import bars
    from libs.cli.output import remarks
    from libs.data.partition import partition_patients
    from libs.fl.attacks.contributions import ATTACKS, attack_of
    from libs.fl.attacks.contributions_trial import compare, honest_norms, names, with_check
    from libs.fl.attacks.membership_trial import some_images
    from libs.fl.presets import default_plan

    chosen = [attack_of(name) for name in attack] if attack else list(ATTACKS.values())
    source, train, test = load_images(data, size=size, seed=seed)
    pool = some_images(train, count=150 if quick else images, seed=seed)
    parts = partition_patients(pool, hospitals=hospitals, seed=seed)
    federation = dict(zip(names(hospitals), parts, strict=True))
    plan = default_plan(
        model=model, image_size=size, images=len(pool), rounds=2 if quick else rounds, seed=seed
    )
    started = time.process_time()
    with bars(remarks()) as tell:
        plan = with_check(plan, honest_norms(plan, federation))
        tell("a pilot study, for the bound", 1.0)
        pairs = compare(plan, federation, test, attacks=chosen, on_progress=tell)
    seconds = time.process_time() - started
    folder = write(output, source=source, plan=plan, hospitals=federation, pairs=pairs, cpu_s=seconds)
    show(folder, as_json=as_json)
