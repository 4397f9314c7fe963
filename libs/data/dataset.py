"""Reading a data set from disk, whatever its form."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Protocol

from libs.core.errors import InvalidInput
from libs.data import folder, npz
from libs.data.images import check_size
from libs.data.imageset import CLASS_NAMES, POSITIVE, ImageSet, Parts, join, require_both_classes
from libs.data.partition import split_by_patient

__all__ = [
    "CLASS_NAMES",
    "POSITIVE",
    "SOURCES",
    "ImageSet",
    "Source",
    "load_dataset",
    "load_train_and_test",
]

Split = Literal["train", "test", "all"]


class _Reader(Protocol):
    def __call__(self, path: Path, *, size: int) -> Parts: ...


@dataclass(frozen=True)
class Source:
    """One form in which radiographs lie on a disk."""

    describes: str
    recognises: Callable[[Path], bool]
    read: _Reader


SOURCES: tuple[Source, ...] = (
    Source("a folder with one folder per class", folder.recognises, folder.read),
    Source("an .npz file with MedMNIST's keys", npz.recognises, npz.read),
)
"""To add a source, write its module and list it here; the bad-input table in tests/unit/data covers it."""


def load_dataset(path: Path, *, size: int, split: Split = "all") -> ImageSet:
    """The radiographs at `path` as squares of `size` pixels, in an order that depends on their names only.

    "train" is the official train and validation parts together (PneumoniaMNIST's share patients, so the
    border between them means nothing), "test" the official test part, "all" both. Raises InvalidInput when
    there is nothing to read, a class is missing, or an image is unreadable. Texts never hold a file name,
    which often holds a patient's number; the exception's notes do, for the owner's own screen.
    """
    parts = _read(path, size=size)
    if split == "all":
        chosen = parts.train if parts.test is None else join([parts.train, parts.test])
    elif parts.test is None:
        raise InvalidInput(
            "This data set has no official train and test parts. Load all of it and divide it by patient."
        )
    else:
        chosen = parts.train if split == "train" else parts.test
    require_both_classes(chosen)
    return chosen


def load_train_and_test(
    path: Path, *, size: int, test_fraction: float = 0.25, seed: int = 0
) -> tuple[ImageSet, ImageSet]:
    """(train, test): the official test part, or `test_fraction` of the patients where there is none."""
    parts = _read(path, size=size)
    if parts.test is None:
        require_both_classes(parts.train)
        return split_by_patient(parts.train, fraction=test_fraction, seed=seed)
    require_both_classes(parts.train)
    require_both_classes(parts.test)
    return parts.train, parts.test


def _read(path: Path, *, size: int) -> Parts:
    check_size(size)
    try:
        return _read_existing(path, size=size)
    except OSError as error:
        raise InvalidInput(
            "The data set cannot be read from this disk. Check that this account may read all of it."
        ) from error


def _read_existing(path: Path, *, size: int) -> Parts:
    if not path.exists():
        raise InvalidInput(
            "There is nothing at this path. Check its spelling, and that this machine can read it."
        )
    for source in SOURCES:
        if source.recognises(path):
            return source.read(path, size=size)
    raise InvalidInput(
        "This is not a data set that Trefoil can read. It reads "
        f"{' or '.join(source.describes for source in SOURCES)}."
    )
