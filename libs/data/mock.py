"""The mock beside a private data set: made-up radiographs of its form, so that a scientist's code can run.

A mock is a pure function of its recipe. The recipe is drawn from what the owner discloses and a random seed,
never from the images, so whoever has the recipe has learnt nothing that the catalogue does not say. It is
words and numbers: whoever wants the mock makes it, and compares its hash with the published one.
"""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Annotated, ClassVar, Literal

import numpy as np
from pydantic import Field

from libs.core.errors import AlreadyExists, FailedPrecondition, InvalidInput
from libs.data.disclosure import DisclosedCounts
from libs.data.document import Record
from libs.data.imageset import CLASS_NAMES, ImageSet
from libs.data.npz import ids_file
from libs.data.phantom import GENERATOR, make_phantoms_per_class
from libs.data.schema import DatasetSchema

MAX_SIDE = 128
MAX_IMAGES = 2000
DEFAULT_IMAGES = 200
"""A mock is to run code against, not to learn from: it stays small where the data set is large."""

_MIN_PER_CLASS = 4


class MockRecipe(Record):
    """All that a mock is made from. `images_per_class` in the order of `classes`; `side` in pixels."""

    describes: ClassVar[str] = "mock's recipe"

    version: Literal[1] = 1
    generator: str = Field(min_length=1, max_length=32)
    seed: int = Field(ge=0, lt=2**32)
    side: int = Field(ge=8, le=MAX_SIDE)
    classes: tuple[Annotated[str, Field(min_length=1, max_length=64)], ...] = Field(
        min_length=2, max_length=MAX_IMAGES
    )
    images_per_class: tuple[Annotated[int, Field(ge=1, le=MAX_IMAGES)], ...] = Field(
        min_length=2, max_length=MAX_IMAGES
    )


def recipe_for(
    schema: DatasetSchema, counts: DisclosedCounts, *, seed: int, images: int = DEFAULT_IMAGES
) -> MockRecipe:
    """The recipe of a mock like a data set of this schema and these counts, of about `images` images.

    Takes nothing else, so two data sets about which the same is said have the same recipe. Classes are in
    the proportion that the counts disclose, or equal; squares have the shortest side that the schema names,
    at most MAX_SIDE. Raises InvalidInput for more than MAX_IMAGES, or too few for both classes.
    """
    if not _MIN_PER_CLASS * len(schema.classes) <= images <= MAX_IMAGES:
        raise InvalidInput(
            f"A mock has {_MIN_PER_CLASS * len(schema.classes)} to {MAX_IMAGES} images, not {images}."
        )
    told = [counts.images_per_class.get(name) for name in schema.classes]
    shares = [1 if count is None else count.nominal for count in told]
    sizes = [max(_MIN_PER_CLASS, images * share // max(1, sum(shares))) for share in shares]
    sizes[sizes.index(max(sizes))] -= max(0, sum(sizes) - images)
    return MockRecipe(
        generator=GENERATOR,
        seed=seed,
        side=min(MAX_SIDE, max(8, min(schema.height.low, schema.width.low))),
        classes=schema.classes,
        images_per_class=tuple(sizes),
    )


def make_mock(recipe: MockRecipe, *, expected_hash: str | None = None) -> ImageSet:
    """The mock of this recipe; its `content_hash` is what is published, and compared where it is given.

    Raises FailedPrecondition for another generator's recipe and for a mock that is not the published one,
    InvalidInput for classes that no generator makes.
    """
    if recipe.generator != GENERATOR:
        raise FailedPrecondition(
            f"This mock needs the generator {recipe.generator}, and this Trefoil has {GENERATOR}. Install "
            "the version of Trefoil that the data set's hospital runs."
        )
    if recipe.classes != CLASS_NAMES or sum(recipe.images_per_class) > MAX_IMAGES:
        raise InvalidInput(
            f"Mocks have the classes {' and '.join(CLASS_NAMES)} and at most {MAX_IMAGES} images. "
            "Ask the data set's owner to publish it again."
        )
    mock = make_phantoms_per_class(recipe.images_per_class, size=recipe.side, seed=recipe.seed)
    if expected_hash is not None and mock.content_hash != expected_hash:
        raise FailedPrecondition(
            "The mock made here is not the one that was published: recipe and hash do not belong together, "
            "or this machine computes otherwise. Ask the data set's owner to publish it again."
        )
    return mock


def write_mock(recipe: MockRecipe, path: Path, *, expected_hash: str | None = None) -> ImageSet:
    """Write the mock as a new .npz file, with its patients in a CSV file beside, and give it back.

    `load_dataset(path, size=recipe.side)` reads the same pixels, labels and patients. Raises what `make_mock`
    does, InvalidInput for another suffix, and AlreadyExists when one of the two files is there.
    """
    if path.suffix.lower() != ".npz":
        raise InvalidInput("A mock is written as an .npz file. Choose a name that ends in .npz.")
    if path.exists() or ids_file(path).exists():
        raise AlreadyExists("There is a file of this name already. Choose another, or remove it first.")
    mock = make_mock(recipe, expected_hash=expected_hash)
    with ids_file(path).open("x", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["split", "index", "patient_id"])
        rows.writerows(("train", i, patient) for i, patient in enumerate(mock.patients))
    with path.open("xb") as archive:
        np.savez_compressed(archive, train_images=mock.images, train_labels=mock.labels[:, None])
    return mock
