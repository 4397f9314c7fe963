"""What all attacks have in common: where images come from and where results go."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from libs.data.imageset import ImageSet

DataOption = Annotated[
    Path | None,
    typer.Option(
        help="Folder with NORMAL/ and PNEUMONIA/, or an .npz file; without it, made-up X-rays.",
        show_default=False,
    ),
]
SizeOption = Annotated[int, typer.Option(min=8, max=256, help="Pixels a side.")]
SeedOption = Annotated[
    int, typer.Option(min=0, max=2**32 - 1, help="The same seed attacks the same images in the same way.")
]
OutputOption = Annotated[Path, typer.Option(help="Folder for the results of all runs.")]
QuickOption = Annotated[
    bool, typer.Option("--quick", help="Seconds instead of minutes; its figures only show that it runs.")
]

PHANTOMS = 1600


def load_images(data: Path | None, *, size: int, seed: int) -> tuple[str, ImageSet, ImageSet]:
    """(what they are, to learn from, to measure on), disjoint by patient."""
    from libs.data.dataset import load_train_and_test
    from libs.data.partition import split_by_patient
    from libs.data.phantom import make_phantoms

    if data is None:
        images = make_phantoms(PHANTOMS, size=size, seed=seed)
        return "made-up chest radiographs", *split_by_patient(images, fraction=0.25, seed=seed)
    return data.name, *load_train_and_test(data, size=size, test_fraction=0.25, seed=seed)
