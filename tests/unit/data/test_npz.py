"""MedMNIST's .npz files."""

from pathlib import Path

import numpy as np
import pytest

from libs.core.errors import InvalidInput
from libs.data.dataset import load_dataset, load_train_and_test

from .conftest import npz_arrays


@pytest.fixture
def archive(tmp_path: Path) -> Path:
    np.savez_compressed(tmp_path / "set.npz", **npz_arrays())
    return tmp_path / "set.npz"


def test_train_and_val_are_pooled_and_pixels_kept(archive: Path) -> None:
    arrays = npz_arrays()
    train, test = load_train_and_test(archive, size=28)
    assert (train.images == np.concatenate([arrays["train_images"], arrays["val_images"]])).all()
    assert (test.images == arrays["test_images"]).all()
    assert test.labels.tolist() == arrays["test_labels"][:, 0].tolist()


def test_without_a_file_of_patients_each_image_is_one(archive: Path) -> None:
    assert load_dataset(archive, size=28).patient_count == 18


def _write_patients(archive: Path, patient: dict[str, str]) -> None:
    lines = ["split,index,label,image_id,patient_id"]
    lines += [f"{split},{i},0,x,{patient[split]}{i}" for split in patient for i in range(6)]
    archive.with_name("set_ids.csv").write_text("\n".join(lines))


def test_the_file_beside_gives_the_patients(archive: Path) -> None:
    _write_patients(archive, {"train": "a", "val": "a", "test": "b"})
    train, test = load_train_and_test(archive, size=28)
    assert (len(train), train.patient_count, test.patient_count) == (12, 6, 6)


def test_patients_in_both_train_and_test_are_refused(archive: Path) -> None:
    _write_patients(archive, {"train": "a", "val": "b", "test": "a"})
    with pytest.raises(InvalidInput, match="both train and test"):
        load_dataset(archive, size=28)


def test_an_incomplete_file_of_patients_is_refused(archive: Path) -> None:
    _write_patients(archive, {"train": "a", "test": "b"})
    with pytest.raises(InvalidInput, match="misses 6 images of the val part"):
        load_dataset(archive, size=28)


@pytest.mark.parametrize("size", [16, 28, 64])
def test_other_sizes_are_scaled(tmp_path: Path, size: int) -> None:
    np.savez(tmp_path / "x.npz", **npz_arrays(size=40))
    assert load_dataset(tmp_path / "x.npz", size=size).images.shape == (18, size, size)


def test_colour_fractions_and_single_channels_become_gray_bytes(tmp_path: Path) -> None:
    plain = npz_arrays()
    forms = {
        "colour": lambda a: np.repeat(a[..., None], 3, axis=3),
        "channel": lambda a: a[..., None],
        "fractions": lambda a: (a / 255).astype(np.float32),
        "wide": lambda a: a.astype(np.int64),
    }
    np.savez(tmp_path / "plain.npz", **plain)
    expected = load_dataset(tmp_path / "plain.npz", size=28).images
    for name, form in forms.items():
        np.savez(tmp_path / f"{name}.npz", **{k: form(v) if "images" in k else v for k, v in plain.items()})
        got = load_dataset(tmp_path / f"{name}.npz", size=28).images
        assert (got == expected).all(), name
