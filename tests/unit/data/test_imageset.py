"""The form in which all code sees data."""

from pathlib import Path

import numpy as np
import pytest
import torch

from libs.core.errors import InvalidInput
from libs.data.dataset import load_train_and_test
from libs.data.imageset import ImageSet, join
from libs.data.phantom import make_phantoms
from libs.data.transforms import to_model_input

REAL = Path(__file__).parents[3].parent / "shared" / "data"


def test_repr_shows_counts_and_no_patient() -> None:
    images = make_phantoms(10, size=8, seed=0)
    assert "phantom" not in repr(images)
    assert "(10, 8, 8)" in repr(images)


@pytest.mark.parametrize(
    "wrong",
    [
        {"images": np.zeros((2, 8, 8), np.float32)},
        {"images": np.zeros((2, 8, 9), np.uint8)},
        {"images": np.zeros((2, 64), np.uint8)},
        {"labels": np.zeros(3, np.int64)},
        {"labels": np.array([0, 2], np.int64)},
        {"labels": np.array([0, -1], np.int64)},
        {"patients": ("a",)},
        {"names": ()},
    ],
)
def test_fields_that_do_not_belong_together_are_refused(wrong: dict[str, object]) -> None:
    right = {
        "images": np.zeros((2, 8, 8), np.uint8),
        "labels": np.array([0, 1], np.int64),
        "patients": ("a", "b"),
        "names": ("1", "2"),
    }
    ImageSet(**right)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput):
        ImageSet(**right | wrong)  # type: ignore[arg-type]


def test_the_content_hash_sees_pixels_labels_and_patients() -> None:
    images = make_phantoms(10, size=8, seed=0)
    pixels = images.images.copy()
    pixels[3, 2, 1] ^= 1
    others = [
        ImageSet(pixels, images.labels, images.patients, images.names),
        ImageSet(images.images, 1 - images.labels, images.patients, images.names),
        ImageSet(images.images, images.labels, ("x", *images.patients[1:]), images.names),
    ]
    assert len({images.content_hash, *(other.content_hash for other in others)}) == 4


def test_sets_of_different_sizes_are_not_joined() -> None:
    with pytest.raises(InvalidInput):
        join([make_phantoms(8, size=8, seed=0), make_phantoms(8, size=16, seed=0)])


def test_model_input_is_between_minus_one_and_one() -> None:
    x = to_model_input(np.array([[[0, 255]]], np.uint8))
    assert x.shape == (1, 1, 1, 2)
    assert x.dtype == torch.float32
    assert x.flatten().tolist() == [-1.0, 1.0]


@pytest.mark.skipif(not REAL.is_dir(), reason="the real radiographs are not on this machine")
def test_pneumoniamnist_pools_patients_of_train_and_val_and_keeps_the_official_test() -> None:
    train, test = load_train_and_test(REAL / "pneumoniamnist.npz", size=28)
    assert train.class_counts == {"NORMAL": 1214 + 135, "PNEUMONIA": 3494 + 389}
    assert test.class_counts == {"NORMAL": 234, "PNEUMONIA": 390}
    assert train.patient_count < len(train) - 2000
    assert not set(train.patients) & set(test.patients)
