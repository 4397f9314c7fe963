"""Radiographs in a folder per class, with or without train/, val/ and test/ above."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from libs.core.errors import InvalidInput
from libs.data.images import IMAGE_SUFFIXES, Form, load_image, measure_image, naming
from libs.data.imageset import CLASS_NAMES, ImageSet, Parts
from libs.data.labels import LABELS_FILE, entry_of, read_labels
from libs.data.patients import patient_of
from libs.data.tree import TEST, TRAIN, children


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

    Patients come from the column patient_id of LABELS_FILE, else from file names. Numbers in public file
    names restart in the test part, so patients known only by name get the prefix "test:" there; patients
    named by LABELS_FILE are taken at their word and must not be in both parts. Raises InvalidInput (TooLarge
    for a decompression bomb).
    """
    train, test = _parts(path)
    if test and not train:
        raise InvalidInput("There is a test folder but nothing to train on. Add a train folder beside it.")
    if {file.patient for file in train} & {file.patient for file in test}:
        raise InvalidInput(
            f"{LABELS_FILE} puts patients into both train and test. Move all images of a patient to one side."
        )
    return Parts(train=_load(train, size=size), test=_load(test, size=size) if test else None)


def measure(path: Path) -> set[Form]:
    """Every form that images below `path` have, from their headers. Raises what `read` does."""
    train, test = _parts(path)
    forms = set()
    for file in [*train, *test]:
        with naming(file.path):
            forms.add(measure_image(file.path))
    return forms


def _parts(path: Path) -> tuple[list[_File], list[_File]]:
    """(to learn from, official test part), each in order."""
    labels = read_labels(path)
    listed = labels.column("patient_id") if labels else None
    splits = {child.name.lower(): child for child in children(path) if child.is_dir()}
    if not splits.keys() & {*TRAIN, *TEST}:
        return _files(path, root=path, listed=listed, prefix=""), []
    train, test = (
        [
            file
            for name in names
            if name in splits
            for file in _files(splits[name], root=path, listed=listed, prefix=prefix)
        ]
        for names, prefix in ((TRAIN, ""), (TEST, "test:"))
    )
    return train, test


def _files(folder: Path, *, root: Path, listed: dict[str, str] | None, prefix: str) -> list[_File]:
    """Every image of the class folders in `folder`, in order."""
    found = {child.name.upper(): child for child in children(folder) if child.is_dir()}
    unknown = found.keys() - set(CLASS_NAMES)
    if unknown or not found:
        raise InvalidInput(
            f"Images belong in folders named {' and '.join(CLASS_NAMES)}, maybe inside train, val and test. "
            + (f"{len(unknown)} folder(s) have another name." if unknown else "There is no such folder.")
        )
    files = []
    for label, class_name in enumerate(CLASS_NAMES):
        for number, path in enumerate(children(found[class_name]) if class_name in found else [], start=1):
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
    return entry_of(name, path, listed)


def _load(files: list[_File], *, size: int) -> ImageSet:
    images = np.empty((len(files), size, size), np.uint8)
    for i, file in enumerate(files):
        with naming(file.path):
            images[i] = load_image(file.path, size=size)
    return ImageSet(
        images=images,
        labels=np.array([file.label for file in files], np.int64),
        patients=tuple(file.patient for file in files),
        names=tuple(file.name for file in files),
    )
