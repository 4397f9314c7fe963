"""Folders of radiographs."""

import os
from pathlib import Path

import numpy as np
import pytest

from libs.core.errors import InvalidInput
from libs.data.dataset import load_dataset, load_train_and_test

from .conftest import write_image


def test_class_folders_give_labels_and_patients(class_folders: Path) -> None:
    images = load_dataset(class_folders, size=16)
    assert images.images.shape == (6, 16, 16)
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.patients == ("IM-0001", "IM-0002", "IM-0001", "person1", "person1", "person2")


def test_the_order_of_images_is_that_of_their_names_and_not_of_the_disk(tmp_path: Path) -> None:
    names = ["person9_virus_1", "person10_virus_1", "person1_virus_1"]
    hashes = set()
    for attempt, order in enumerate([names, names[::-1]]):
        root = tmp_path / str(attempt)
        write_image(root / "NORMAL" / "IM-1-1.png")
        for name in order:
            write_image(root / "PNEUMONIA" / f"{name}.png", value=len(name))
            os.sync()
        hashes.add(load_dataset(root, size=16).content_hash)
    assert len(hashes) == 1


def test_train_and_val_are_pooled_and_test_is_kept_apart(tmp_path: Path) -> None:
    for split, count in {"train": 3, "val": 1, "test": 2}.items():
        for i in range(count):
            write_image(tmp_path / split / "NORMAL" / f"IM-{split}{i}.png")
            write_image(tmp_path / split / "PNEUMONIA" / f"person{i}_virus_{split}.png")
    assert len(load_dataset(tmp_path, size=16, split="train")) == 8
    assert len(load_dataset(tmp_path, size=16, split="test")) == 4
    assert len(load_dataset(tmp_path, size=16)) == 12


def test_patient_numbers_that_restart_in_test_stay_two_patients(tmp_path: Path) -> None:
    for split in ("train", "test"):
        write_image(tmp_path / split / "NORMAL" / "IM-0001-0001.png")
        write_image(tmp_path / split / "PNEUMONIA" / "person1_virus_1.png")
    train, test = load_train_and_test(tmp_path, size=16)
    assert not set(train.patients) & set(test.patients)
    assert load_dataset(tmp_path, size=16).patient_count == 4


def test_labels_csv_decides_whose_an_image_is(class_folders: Path) -> None:
    files = sorted(p.relative_to(class_folders).as_posix() for p in class_folders.rglob("*.jpeg"))
    lines = ["file,label,patient_id", *(f"{file},x,patient-{i // 2}" for i, file in enumerate(files))]
    (class_folders / "labels.csv").write_text("\n".join(lines))
    assert load_dataset(class_folders, size=16).patient_count == 3


def test_a_patient_that_labels_csv_puts_on_both_sides_is_refused(tmp_path: Path) -> None:
    lines = ["file,patient_id"]
    for split in ("train", "test"):
        for name in ("NORMAL/a.png", "PNEUMONIA/b.png"):
            write_image(tmp_path / split / name)
            lines.append(f"{split}/{name},the-same")
    (tmp_path / "labels.csv").write_text("\n".join(lines))
    with pytest.raises(InvalidInput, match="both train and test"):
        load_dataset(tmp_path, size=16)


def test_a_set_without_official_parts_is_divided_by_patient(class_folders: Path) -> None:
    with pytest.raises(InvalidInput, match="divide it by patient"):
        load_dataset(class_folders, size=16, split="test")
    train, test = load_train_and_test(class_folders, size=16, test_fraction=0.5)
    assert not set(train.patients) & set(test.patients)
    assert len(train) + len(test) == 6


def test_what_systems_leave_behind_is_not_data(class_folders: Path) -> None:
    for name in (".DS_Store", "Thumbs.db"):
        (class_folders / "NORMAL" / name).write_bytes(b"x")
    (class_folders / "__MACOSX").mkdir()
    assert len(load_dataset(class_folders, size=16)) == 6


def test_images_of_any_size_are_scaled_to_one(tmp_path: Path) -> None:
    write_image(tmp_path / "NORMAL" / "a.png", shape=(5, 9))
    write_image(tmp_path / "PNEUMONIA" / "b.png", shape=(300, 200))
    images = load_dataset(tmp_path, size=64)
    assert images.images.shape == (2, 64, 64)
    assert images.images.dtype == np.uint8
