"""Mocks: made of what is disclosed, and of nothing else."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from libs.core.errors import AlreadyExists, FailedPrecondition, InvalidInput
from libs.data.dataset import SourceKind, load_dataset
from libs.data.disclosure import CountDisclosure, DisclosedCounts, disclose
from libs.data.export import export_part
from libs.data.imageset import CLASS_NAMES
from libs.data.mock import MAX_IMAGES, MockRecipe, make_mock, recipe_for, write_mock
from libs.data.phantom import make_phantoms
from libs.data.schema import MODALITY, DatasetSchema, Sides, describe

ROOT = Path(__file__).parents[3]
RECIPE = MockRecipe(generator="phantom-2", seed=7, side=28, classes=CLASS_NAMES, images_per_class=(12, 20))
HASH = "425864e1421bdec141274ea3af824053291bb1740a1e46bbc9f61ae0b0994fac"
"""Of RECIPE's mock, made with numpy 2.4 on x86-64. If it changes, GENERATOR has to change with it."""


def _schema(low: int = 28) -> DatasetSchema:
    return DatasetSchema(
        source=SourceKind.FOLDER,
        height=Sides(low=low, high=2048),
        width=Sides(low=low + 1, high=2048),
        channels=1,
        bits=8,
        classes=CLASS_NAMES,
        modality=MODALITY,
    )


def _counts(
    normal: int, pneumonia: int, policy: CountDisclosure = CountDisclosure.ROUNDED
) -> DisclosedCounts:
    return disclose({"NORMAL": normal, "PNEUMONIA": pneumonia}, patients=normal, policy=policy)


def test_a_recipe_gives_the_published_mock() -> None:
    assert make_mock(RECIPE).content_hash == HASH
    make_mock(RECIPE, expected_hash=HASH)


def test_another_processor_makes_the_same_mock() -> None:
    code = "from tests.unit.data.test_mock import *; print(make_mock(RECIPE).content_hash, end='')"
    plain = {"NPY_DISABLE_CPU_FEATURES": "X86_V4 X86_V3", "OPENBLAS_CORETYPE": "Nehalem"}
    answer = subprocess.run(
        [sys.executable, "-c", code],
        env=os.environ | plain,
        cwd=ROOT,
        capture_output=True,
        check=True,
        text=True,
    )
    assert answer.stdout == HASH


def test_two_data_sets_of_which_the_same_is_said_have_the_same_recipe(tmp_path: Path) -> None:
    recipes = []
    for seed in (1, 2):
        images = make_phantoms(40, size=32, seed=seed)
        export_part(images, tmp_path / str(seed))
        counts = disclose(
            {"NORMAL": 11 + seed, "PNEUMONIA": 23 + seed}, patients=seed, policy=CountDisclosure.ROUNDED
        )
        recipes.append(recipe_for(describe(tmp_path / str(seed)), counts, seed=5))
    assert recipes[0] == recipes[1]
    assert recipes[0].canonical_json() == recipes[1].canonical_json()


def test_the_mock_has_the_form_and_the_proportions_that_are_disclosed() -> None:
    recipe = recipe_for(_schema(), _counts(300, 900, CountDisclosure.EXACT), seed=0, images=100)
    mock = make_mock(recipe)
    assert mock.size == 28
    assert mock.class_counts == {"NORMAL": 25, "PNEUMONIA": 75}


def test_withheld_counts_give_classes_of_the_same_size() -> None:
    recipe = recipe_for(_schema(), _counts(1, 999, CountDisclosure.WITHHELD), seed=0)
    assert recipe.images_per_class == (100, 100)


def test_a_rare_class_still_occurs() -> None:
    assert recipe_for(_schema(), _counts(1, 100_000), seed=0).images_per_class == (4, 196)


def test_a_mock_stays_small() -> None:
    recipe = recipe_for(_schema(1000), _counts(10**6, 10**6, CountDisclosure.EXACT), seed=0)
    assert recipe.side == 128
    assert sum(recipe.images_per_class) == 200
    for images in (7, MAX_IMAGES + 1):
        with pytest.raises(InvalidInput, match="images, not"):
            recipe_for(_schema(), _counts(10, 10), seed=0, images=images)


def test_the_written_mock_is_read_as_any_data_set_is(tmp_path: Path) -> None:
    written = write_mock(RECIPE, tmp_path / "mock.npz", expected_hash=HASH)
    read = load_dataset(tmp_path / "mock.npz", size=RECIPE.side)
    assert read.content_hash == written.content_hash == HASH


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    for name in ("mock.npz", "mock_ids.csv"):
        (tmp_path / name).write_text("mine")
        with pytest.raises(AlreadyExists):
            write_mock(RECIPE, tmp_path / "mock.npz")
        assert (tmp_path / name).read_text() == "mine"
        (tmp_path / name).unlink()
    with pytest.raises(InvalidInput, match=r"ends in \.npz"):
        write_mock(RECIPE, tmp_path / "mock.zip")


def test_another_mock_than_the_published_one_is_refused_and_not_written(tmp_path: Path) -> None:
    with pytest.raises(FailedPrecondition, match="not the one that was published"):
        write_mock(RECIPE, tmp_path / "mock.npz", expected_hash="0" * 64)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("wrong", "error"),
    [
        ({"generator": "phantom-1"}, FailedPrecondition),
        ({"classes": ("PNEUMONIA", "NORMAL")}, InvalidInput),
        ({"images_per_class": (MAX_IMAGES, 1)}, InvalidInput),
        ({"images_per_class": (5, 5, 5)}, InvalidInput),
    ],
)
def test_a_recipe_that_this_generator_cannot_follow_is_refused(
    wrong: dict[str, object], error: type[Exception]
) -> None:
    with pytest.raises(error):
        make_mock(RECIPE.model_copy(update=wrong))


def test_a_recipe_travels_as_canonical_json() -> None:
    assert MockRecipe.from_json(RECIPE.canonical_json()) == RECIPE
    for broken in (b"{}", RECIPE.canonical_json().replace(b'"side":28', b'"side":100000')):
        with pytest.raises(InvalidInput):
            MockRecipe.from_json(broken)
