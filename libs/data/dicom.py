"""DICOM files in a tree of folders, JPEG and PNG among them or not; labelled by folders or labels.csv."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput
from libs.data.dicom_file import is_dicom
from libs.data.dicom_image import load_dicom, measure_dicom
from libs.data.images import Form, is_image, load_image, measure_image, naming
from libs.data.imageset import CLASS_NAMES, POSITIVE, ImageSet, Parts
from libs.data.labels import LABELS_FILE, Labels, entry_of, read_labels
from libs.data.tree import TEST, TRAIN, children

_INDEX = "DICOMDIR"  # a medium's table of contents, no image
_SUFFIXES = (".dcm", ".dicom")
_NO_FINDING, _PNEUMONIA = "no finding", "pneumonia"


@dataclass(frozen=True)
class _File:
    path: Path
    name: str
    label: int
    tests: bool
    dicom: bool


def recognises(path: Path) -> bool:
    """A folder with a file below it that begins as DICOM files do, or is named like one."""
    return path.is_dir() and any(
        file.suffix.lower() in _SUFFIXES or is_dicom(file)
        for file in _walk(path, {path.resolve()}, refuse=False)
    )


def read(path: Path, *, size: int) -> Parts:
    """All radiographs below `path` at `size` pixels a side, in order of their names.

    Labels come from LABELS_FILE: its column `label` (CLASS_NAMES), else `finding` in the words of NIH's set
    ("No Finding", or anything with "Pneumonia"). Without these columns each file lies somewhere in a folder
    named by its class. Folders train, val and test above are official parts. Patients are LABELS_FILE's
    column `patient_id`, else the headers' PatientID with its issuer; they become numbers here, and ids go no
    further. With a JPEG or PNG in the tree that column has to be there. Raises InvalidInput (TooLarge) with
    the reason for the first file that is no frontal chest radiograph, for an image that occurs twice, and for
    one without patient.
    """
    labels = read_labels(path)
    files = list(_files(path, labels))
    listed = labels.column("patient_id") if labels and "patient_id" in labels.columns else None
    images = np.empty((len(files), size, size), np.uint8)
    owners: list[tuple[str, str]] = []
    instances: set[str] = set()
    for i, file in enumerate(files):
        with naming(file.path):
            images[i], owner, instance = _load(file, size=size)
            if listed is not None:
                owner = ("", entry_of(file.name, file.path, listed))
            if owner is None:
                raise InvalidInput(
                    (
                        "A DICOM file has no PatientID"
                        if file.dicom
                        else "A JPEG or PNG among DICOM files tells no patient"
                    )
                    + ", so images of one patient could lie on both sides of a split. List all files in "
                    f"{LABELS_FILE} with a column patient_id."
                )
            if instance in instances:
                raise InvalidInput("An image occurs twice (one SOP instance). Remove one of the files.")
        owners.append(owner)
        instances.add(instance)
    return _divided(files, images, owners)


def measure(path: Path) -> set[Form]:
    """Every form that images below `path` have, from their headers. Raises what `read` does for a header."""
    forms = set()
    for file in _files(path, read_labels(path)):
        with naming(file.path):
            forms.add(measure_dicom(file.path) if file.dicom else measure_image(file.path))
    return forms


def dicom_files(path: Path) -> Iterator[Path]:
    """The DICOM files of a data set. Raises what `read` does for a tree."""
    return (file.path for file in _files(path, read_labels(path)) if file.dicom)


def _load(file: _File, *, size: int) -> tuple[npt.NDArray[np.uint8], tuple[str, str] | None, str]:
    """Pixels, patient, and what tells the image from all others."""
    if not file.dicom:
        return load_image(file.path, size=size), None, f"file {file.name}"
    image = load_dicom(file.path, size=size)
    return image.pixels, image.patient, image.instance


def _divided(files: list[_File], images: npt.NDArray[np.uint8], owners: list[tuple[str, str]]) -> Parts:
    numbers = {owner: f"patient-{i:06d}" for i, owner in enumerate(sorted(set(owners)))}
    whole = ImageSet(
        images=images,
        labels=np.array([file.label for file in files], np.int64),
        patients=tuple(numbers[owner] for owner in owners),
        names=tuple(file.name for file in files),
    )
    train = whole.select([i for i, file in enumerate(files) if not file.tests])
    test = whole.select([i for i, file in enumerate(files) if file.tests])
    if not len(test):
        return Parts(train=train, test=None)
    if not len(train):
        raise InvalidInput("There is a test folder but nothing to train on. Add a train folder beside it.")
    if set(train.patients) & set(test.patients):
        raise InvalidInput("Some patients are in both train and test. Move all of a patient to one side.")
    return Parts(train=train, test=test)


def _files(root: Path, labels: Labels | None) -> Iterator[_File]:
    """Every file of the tree with its label, in order of names; the first that is no image is refused."""
    column = next((name for name in ("label", "finding") if labels and name in labels.columns), None)
    listed = labels.column(column) if labels and column else None
    split = any(child.is_dir() and child.name.lower() in {*TRAIN, *TEST} for child in children(root))
    for path in _walk(root, {root.resolve()}, refuse=True):
        name = path.relative_to(root).as_posix()
        with naming(path):
            dicom = is_dicom(path)
            if not dicom and not is_image(path):
                raise InvalidInput(
                    "A file among the DICOM files is not DICOM as it is stored in files (PS3.10: a preamble, "
                    "then DICM), and neither JPEG nor PNG. Move everything else out of the data set."
                )
            part = PurePosixPath(name).parts[0].lower()
            if split and part not in {*TRAIN, *TEST}:
                raise InvalidInput(
                    "Some files are beside the folders train, val and test. Move them into one."
                )
            label = _label_of_folder(name) if listed is None else label_of_entry(entry_of(name, path, listed))
        yield _File(path, name, label, tests=split and part in TEST, dicom=dicom)


def _walk(folder: Path, seen: set[Path], *, refuse: bool, top: bool = True) -> Iterator[Path]:
    """All files below, by name, but labels and indices. A folder repeated by a link is refused or skipped."""
    for child in children(folder):
        if child.is_dir():
            real = child.resolve()
            if real in seen and not refuse:
                continue
            if real in seen:
                raise InvalidInput("A link leads to a folder that is in this data set already. Remove it.")
            seen.add(real)
            yield from _walk(child, seen, refuse=refuse, top=False)
        elif child.name.upper() != _INDEX and not (top and child.name == LABELS_FILE):
            yield child


def _label_of_folder(name: str) -> int:
    found = {part.upper() for part in PurePosixPath(name).parts[:-1]} & set(CLASS_NAMES)
    if len(found) != 1:
        raise InvalidInput(
            f"A DICOM file lies in no folder named {' or '.join(CLASS_NAMES)}, or in both. Move it, or name "
            f"each file's class in {LABELS_FILE} with the columns file and label."
        )
    return CLASS_NAMES.index(found.pop())


def label_of_entry(entry: str) -> int:
    """A class name, or findings as NIH writes them: "Infiltration|Pneumonia". Raises InvalidInput."""
    if entry.strip().upper() in CLASS_NAMES:
        return CLASS_NAMES.index(entry.strip().upper())
    findings = {finding.strip().lower() for finding in entry.split("|")}
    if _PNEUMONIA in findings:
        return POSITIVE
    if findings == {_NO_FINDING}:
        return 1 - POSITIVE
    raise InvalidInput(
        f"{LABELS_FILE} gives an image a label that is neither {' nor '.join(CLASS_NAMES)}. An image with "
        "another finding is neither; remove it, or correct its line."
    )
