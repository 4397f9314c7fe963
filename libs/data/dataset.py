"""Reading a data set from disk, whatever its form."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from enum import StrEnum
from pathlib import Path
from typing import Literal, Protocol

from libs.core.errors import InvalidInput
from libs.data import dicom, folder, npz
from libs.data.images import Form, check_size
from libs.data.imageset import CLASS_NAMES, POSITIVE, ImageSet, Parts, join, require_both_classes
from libs.data.partition import split_by_patient

__all__ = [
    "CLASS_NAMES",
    "POSITIVE",
    "SOURCES",
    "ImageSet",
    "Source",
    "SourceKind",
    "load_dataset",
    "load_train_and_test",
]

Split = Literal["train", "test", "all"]


class SourceKind(StrEnum):
    """The forms in which radiographs lie on a disk."""

    FOLDER = "folder"
    NPZ = "npz"
    DICOM = "dicom"


class _Reader(Protocol):
    def __call__(self, path: Path, *, size: int) -> Parts: ...


@dataclass(frozen=True)
class Source:
    """How one form is known, read, and described without decoding a pixel."""

    kind: SourceKind
    describes: str
    recognises: Callable[[Path], bool]
    read: _Reader
    measure: Callable[[Path], set[Form]]


SOURCES: tuple[Source, ...] = (
    Source(
        SourceKind.DICOM,
        "a folder of DICOM files (JPEG and PNG among them or not)",
        dicom.recognises,
        dicom.read,
        dicom.measure,
    ),
    Source(
        SourceKind.FOLDER,
        "a folder with one folder per class",
        folder.recognises,
        folder.read,
        folder.measure,
    ),
    Source(SourceKind.NPZ, "an .npz file with MedMNIST's keys", npz.recognises, npz.read, npz.measure),
)
"""The first that recognises a path reads it. To add a source, write its module and list it here; bad input of
all is refused by tables in tests/unit/data.
"""


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
    with readable_disk():
        return source_of(path).read(path, size=size)


@contextmanager
def readable_disk() -> Iterator[None]:
    """What a disk refuses becomes InvalidInput, whose text holds no path."""
    try:
        yield
    except OSError as error:
        raise InvalidInput(
            "The data set cannot be read from this disk. Check that this account may read all of it."
        ) from error


def source_of(path: Path) -> Source:
    """The source that reads `path`. Raises InvalidInput when there is none, OSError when a disk refuses."""
    if not path.exists():
        raise InvalidInput(
            "There is nothing at this path. Check its spelling, and that this machine can read it."
        )
    for source in SOURCES:
        if source.recognises(path):
            return source
    raise InvalidInput(
        "This is not a data set that Trefoil can read. It reads "
        f"{' or '.join(source.describes for source in SOURCES)}."
    )
