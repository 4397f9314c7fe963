"""Radiographs in a folder per class, with or without train/, val/ and test/ above."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from libs.core.errors import InvalidInput, TooLarge
from libs.data.images import IMAGE_SUFFIXES, load_image
from libs.data.imageset import CLASS_NAMES, ImageSet, Parts
from libs.data.patients import patient_of

LABELS_FILE = "labels.csv"
"""Optional, in the top folder: its columns `file` and `patient_id` say whose each image is."""

_TRAIN, _TEST = ("train", "val"), ("test",)
_IGNORED = {"thumbs.db", "desktop.ini", "__macosx"}
_MAX_LABELS_BYTES = 64 * 2**20


@dataclass(frozen=True)
class _File:
    path: Path
    label: int
    patient: str
    name: str


def recognises(path: Path) -> bool:
    """Any folder; what is wrong inside one is said by `read`."""
    return path.is_dir()


def read(path: Path, *, size: int) -> Parts:
    """All images below `path` at `size` pixels a side, sorted by split, class and file name.

    Patients come from LABELS_FILE, else from file names. Numbers in public file names restart in the test
    part, so patients known only by name get the prefix "test:" there; patients named by LABELS_FILE are
    taken at their word and must not be in both parts. Raises InvalidInput (TooLarge for a decompression
    bomb).
    """
    listed = _read_labels(path)
    splits = {child.name.lower(): child for child in _children(path) if child.is_dir()}
    if not splits.keys() & {*_TRAIN, *_TEST}:
        return Parts(train=_load(_files(path, root=path, listed=listed, prefix=""), size=size), test=None)
    train = [
        file
        for name in _TRAIN
        if name in splits
        for file in _files(splits[name], root=path, listed=listed, prefix="")
    ]
    test = [
        file
        for name in _TEST
        if name in splits
        for file in _files(splits[name], root=path, listed=listed, prefix="test:")
    ]
    if not train:
        raise InvalidInput("There is a test folder but nothing to train on. Add a train folder beside it.")
    if {file.patient for file in train} & {file.patient for file in test}:
        raise InvalidInput(
            f"{LABELS_FILE} puts patients into both train and test. Move all images of a patient to one side."
        )
    return Parts(train=_load(train, size=size), test=_load(test, size=size) if test else None)


def _children(folder: Path) -> list[Path]:
    """Sorted by name, without what operating systems leave behind."""
    return sorted(
        (p for p in folder.iterdir() if not p.name.startswith(".") and p.name.lower() not in _IGNORED),
        key=lambda p: p.name,
    )


def _files(folder: Path, *, root: Path, listed: dict[str, str] | None, prefix: str) -> list[_File]:
    """Every image of the class folders in `folder`, in order."""
    found = {child.name.upper(): child for child in _children(folder) if child.is_dir()}
    unknown = found.keys() - set(CLASS_NAMES)
    if unknown or not found:
        raise InvalidInput(
            f"Images belong in folders named {' and '.join(CLASS_NAMES)}, maybe inside train, val and test. "
            + (f"{len(unknown)} folder(s) have another name." if unknown else "There is no such folder.")
        )
    files = []
    for label, class_name in enumerate(CLASS_NAMES):
        for number, path in enumerate(_children(found[class_name]) if class_name in found else [], start=1):
            if path.suffix.lower() not in IMAGE_SUFFIXES or not path.is_file():
                error = InvalidInput(
                    f"Entry {number} of a {class_name} folder is not an image file "
                    f"({', '.join(IMAGE_SUFFIXES)}). Move everything else out of the class folders."
                )
                error.add_note(f"file: {path}")
                raise error
            name = path.relative_to(root).as_posix()
            files.append(_File(path, label, _patient(path, name, listed, prefix), name))
    return files


def _patient(path: Path, name: str, listed: dict[str, str] | None, prefix: str) -> str:
    if listed is None:
        return prefix + patient_of(path.stem)
    if name not in listed:
        error = InvalidInput(
            f"{LABELS_FILE} does not list every image. Add the missing lines, or remove the file."
        )
        error.add_note(f"file: {path}")
        raise error
    return listed[name]


def _load(files: list[_File], *, size: int) -> ImageSet:
    images = np.empty((len(files), size, size), np.uint8)
    for i, file in enumerate(files):
        try:
            images[i] = load_image(file.path, size=size)
        except (InvalidInput, TooLarge) as error:
            error.add_note(f"file: {file.path}")
            raise
    return ImageSet(
        images=images,
        labels=np.array([file.label for file in files], np.int64),
        patients=tuple(file.patient for file in files),
        names=tuple(file.name for file in files),
    )


def _read_labels(root: Path) -> dict[str, str] | None:
    """File (relative, with slashes) -> patient, or None without a LABELS_FILE."""
    path = root / LABELS_FILE
    if not path.is_file():
        return None
    if path.stat().st_size > _MAX_LABELS_BYTES:
        raise TooLarge(f"{LABELS_FILE} is larger than {_MAX_LABELS_BYTES // 2**20} MiB.")
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            if not {"file", "patient_id"} <= set(rows.fieldnames or ()):
                raise InvalidInput(f"{LABELS_FILE} needs the columns file and patient_id.")
            patients = {row["file"]: row["patient_id"] for row in rows}
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(
            f"{LABELS_FILE} is not a CSV file in UTF-8. Write it again or remove it."
        ) from error
    if not all(patients.values()):
        raise InvalidInput(f"{LABELS_FILE} has lines without a patient_id. Complete them.")
    return patients
