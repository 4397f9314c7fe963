"""`trefoil attack membership`: who was trained on."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Annotated

import typer

from libs.cli.attack.options import DataOption, OutputOption, QuickOption, SeedOption, SizeOption
from libs.cli.options import JsonOption


def membership(
    data: DataOption = None,
    images: Annotated[
        int, typer.Option(min=60, help="Images in all; each model learns from half of them.")
    ] = 1000,
    models: Annotated[
        int, typer.Option(min=6, max=256, help="Models of each kind; each is attacked with the others' help.")
    ] = 8,
    model: Annotated[str, typer.Option(help="Architecture of the models without noise.")] = "small_cnn",
    private_model: Annotated[str, typer.Option(help="Architecture with noise.")] = "small_cnn_private",
    epsilons: Annotated[
        str, typer.Option(help="Epsilons of DP-SGD, with commas between them; empty for none.")
    ] = "1,8",
    delta: Annotated[float, typer.Option(help="Delta of DP-SGD.")] = 1e-4,
    rounds: Annotated[
        int | None, typer.Option(min=1, max=1000, help="Training rounds.", show_default="the preset's")
    ] = None,
    by_heart: Annotated[
        bool, typer.Option(help="Also train without augmentation and for long: what leaks most.")
    ] = True,
    size: SizeOption = 28,
    seed: SeedOption = 0,
    output: OutputOption = Path("runs"),
    quick: QuickOption = False,
    as_json: JsonOption = False,
) -> None:
    """Tell from a trained model which X-rays it was trained on.

    Models are trained on random halves of the images: by the preset, until they know their images by heart,
    and with DP-SGD. Each is attacked in turn, with the others as shadows: by its loss, by its loss against
    theirs, and by likelihood ratio (LiRA). Beside each epsilon stands the most that any attack could reach
    against it.
    """
    from libs.cli.attack.membership_results import kinds_of_training, show, write
    from libs.cli.attack.options import load_images
    from libs.cli.attack.progress import bars
    from libs.cli.epsilons import parse_epsilons
    from libs.cli.output import remarks
    from libs.fl.attacks.membership_trial import attack_training, some_images

    source, train, test = load_images(data, size=size, seed=seed)
    pool = some_images(train, count=120 if quick else images, seed=seed)
    kinds = kinds_of_training(
        model=model,
        private_model=private_model,
        image_size=size,
        images=len(pool) // 2,
        rounds=2 if quick else rounds,
        epsilons=parse_epsilons(epsilons),
        delta=delta,
        seed=seed,
        by_heart=by_heart,
    )
    started = time.process_time()
    attacked = {}
    with bars(remarks()) as tell:
        for name, plan in kinds.items():
            attacked[name] = attack_training(
                pool,
                test,
                plan,
                models=6 if quick else models,
                seed=seed,
                on_progress=lambda fraction, name=name: tell(name, fraction),  # type: ignore[misc]
            )
    seconds = time.process_time() - started
    folder = write(output, source=source, images=pool, attacked=attacked, seed=seed, cpu_s=seconds)
    show(folder, as_json=as_json)
