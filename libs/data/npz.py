"""MedMNIST's .npz files: arrays train_images, train_labels, val_..., test_..., and patients in a CSV file
beside.

An .npz is a zip of .npy files from somebody else. Headers are checked before anything is unpacked, and
nothing is ever unpickled.
"""

from __future__ import annotations

import csv
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput, TooLarge
from libs.data.images import MAX_PIXELS, Form, square_from_array
from libs.data.imageset import CLASS_NAMES, ImageSet, Parts, join

MAX_BYTES = 4 * 2**30
"""Largest unpacked array."""

_SPLITS = ("train", "val", "test")
_MAX_IDS_BYTES = 64 * 2**20


def recognises(path: Path) -> bool:
    """A file that ends in .npz."""
    return path.is_file() and path.suffix.lower() == ".npz"


def ids_file(path: Path) -> Path:
    """Where the patients of an .npz file are listed. It belongs to the data set, if it is there."""
    return path.with_name(f"{path.stem}_ids.csv")


def read(path: Path, *, size: int) -> Parts:
    """The file's images, train and val pooled, at `size` pixels a side.

    Patients come from `<name>_ids.csv` beside the file (columns split, index, patient_id); without it every
    image counts as a patient of its own. Raises InvalidInput, or TooLarge, before any array is unpacked
    that cannot be images.
    """
    patients = _read_patients(ids_file(path))
    with _opened(path) as (archive, splits):
        parts = {split: _read_split(archive, split, size=size, patients=patients) for split in splits}
    learn = [parts[split] for split in ("train", "val") if split in parts]
    if not learn:
        raise InvalidInput(
            "The .npz file has no train_images. It needs MedMNIST's keys: train_images, train_labels, ..."
        )
    train, test = join(learn), parts.get("test")
    if test is not None and set(train.patients) & set(test.patients):
        raise InvalidInput(
            "The file of patients puts some into both train and test. Correct it, or remove the test part."
        )
    return Parts(train=train, test=test)


def measure(path: Path) -> set[Form]:
    """Every form that the file's images have, from the arrays' headers. Raises what `read` does."""
    forms = set()
    with _opened(path) as (archive, splits):
        for split in splits:
            shape, _ = _read_header(archive, f"{split}_images")
            _check_shape(shape)
            forms.add(Form(height=shape[1], width=shape[2], channels=(*shape, 1)[3], bits=8))
    return forms


@contextmanager
def _opened(path: Path) -> Iterator[tuple[zipfile.ZipFile, list[str]]]:
    """The archive and those of _SPLITS that it has."""
    try:
        with zipfile.ZipFile(path) as archive:
            keys = {info.filename.removesuffix(".npy") for info in archive.infolist()}
            yield archive, [split for split in _SPLITS if f"{split}_images" in keys]
    except (zipfile.BadZipFile, OSError, EOFError, NotImplementedError) as error:
        raise InvalidInput("The .npz file is damaged or is not an .npz file. Download it again.") from error


def _read_split(
    archive: zipfile.ZipFile, split: str, *, size: int, patients: dict[tuple[str, int], str] | None
) -> ImageSet:
    images = _pixels(_read_array(archive, f"{split}_images"))
    labels = _labels(_read_array(archive, f"{split}_labels"), count=len(images))
    squares = np.empty((len(images), size, size), np.uint8)
    for i, image in enumerate(images):
        squares[i] = square_from_array(image, size=size)
    names = tuple(f"{split}/{i}" for i in range(len(images)))
    if patients is None:
        owners = names
    elif missing := sum((split, i) not in patients for i in range(len(images))):
        raise InvalidInput(
            f"The file of patients misses {missing} images of the {split} part. Complete or remove it."
        )
    else:
        owners = tuple(patients[split, i] for i in range(len(images)))
    return ImageSet(images=squares, labels=labels, patients=owners, names=names)


def _read_array(archive: zipfile.ZipFile, key: str) -> npt.NDArray[Any]:
    """One array, once its header has proved honest."""
    _read_header(archive, key)
    with _readable(key), archive.open(f"{key}.npy") as stream:
        return np.asarray(np.lib.format.read_array(stream, allow_pickle=False))


def _read_header(archive: zipfile.ZipFile, key: str) -> tuple[tuple[int, ...], np.dtype[Any]]:
    """Shape and type of an array. Its header must be honest: plain numbers whose size is what the zip entry
    says it is.
    """
    try:
        info = archive.getinfo(f"{key}.npy")
    except KeyError:
        raise InvalidInput(f"The .npz file has no {key}. Trefoil reads MedMNIST's keys.") from None
    with _readable(key), archive.open(info) as stream:
        shape, dtype = _parse_header(stream)
        header = stream.tell()
    if dtype.hasobject or dtype.kind not in "biuf":
        raise InvalidInput(f"{key} holds Python objects or texts, not numbers. Save plain arrays of numbers.")
    expected = int(np.prod(shape, dtype=object)) * dtype.itemsize
    if expected > MAX_BYTES:
        raise TooLarge(f"{key} unpacks to more than {MAX_BYTES // 2**30} GiB. Split the data set.")
    if info.file_size - header != expected:
        raise InvalidInput(f"{key} is not as long as its header says. Write the file again.")
    return shape, dtype


@contextmanager
def _readable(key: str) -> Iterator[None]:
    try:
        yield
    except (ValueError, RuntimeError, zipfile.BadZipFile, zlib.error, EOFError) as error:
        # A bad header, an encrypted entry, a wrong checksum, a broken stream, a short one.
        raise InvalidInput(
            f"{key} is not a readable array. Write the .npz file again with numpy.savez."
        ) from error


def _parse_header(stream: Any) -> tuple[tuple[int, ...], np.dtype[Any]]:
    version = np.lib.format.read_magic(stream)
    if version == (1, 0):
        shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
    elif version == (2, 0):
        shape, _, dtype = np.lib.format.read_array_header_2_0(stream)
    else:
        raise ValueError("plain numeric arrays have header version 1 or 2")
    return shape, dtype


def _pixels(array: npt.NDArray[Any]) -> npt.NDArray[np.uint8]:
    """(N, H, W) or (N, H, W, 3) uint8 from integers of 0 to 255, or floats of 0 to 1."""
    _check_shape(array.shape)
    if array.ndim == 4 and array.shape[3] == 1:
        array = array[..., 0]
    if array.dtype == np.uint8:
        return array
    if array.dtype.kind == "f":
        if not np.isfinite(array).all():
            raise InvalidInput("Some pixels are NaN or infinite. Replace them before publishing.")
        if array.size and not (array.min() >= 0 and array.max() <= 1):
            raise InvalidInput(
                "Images saved as fractions must lie between 0 and 1. Save them as 8-bit integers."
            )
        scaled: npt.NDArray[np.uint8] = np.rint(array * 255).astype(np.uint8)
        return scaled
    if array.size and not (array.min() >= 0 and array.max() <= 255):
        raise InvalidInput("Pixels must lie between 0 and 255. Scale the images to 8 bits.")
    return array.astype(np.uint8)


def _check_shape(shape: tuple[int, ...]) -> None:
    if not (len(shape) == 3 or (len(shape) == 4 and shape[3] in {1, 3})) or 0 in shape[1:]:
        raise InvalidInput(f"Images are an array (N, height, width), or (N, height, width, 3), not {shape}.")
    if shape[1] * shape[2] > MAX_PIXELS:
        raise TooLarge("The images are larger than any radiograph.")


def _labels(array: npt.NDArray[Any], *, count: int) -> npt.NDArray[np.int64]:
    if array.shape not in ((count,), (count, 1)):
        raise InvalidInput(
            f"There are {count} images but labels of shape {array.shape}. Give one label per image."
        )
    if array.dtype.kind == "f" and not np.isfinite(array).all():
        raise InvalidInput("Some labels are NaN or infinite. Label every image.")
    labels = array.reshape(count)
    if not np.isin(labels, range(len(CLASS_NAMES))).all():
        raise InvalidInput(f"Labels must be 0 ({CLASS_NAMES[0]}) or 1 ({CLASS_NAMES[1]}).")
    return labels.astype(np.int64)


def _read_patients(path: Path) -> dict[tuple[str, int], str] | None:
    """(split, index) -> patient, or None without such a file."""
    if not path.is_file():
        return None
    if path.stat().st_size > _MAX_IDS_BYTES:
        raise TooLarge(f"The file of patients is larger than {_MAX_IDS_BYTES // 2**20} MiB.")
    try:
        with path.open(newline="", encoding="utf-8") as stream:
            rows = csv.DictReader(stream)
            if not {"split", "index", "patient_id"} <= set(rows.fieldnames or ()):
                raise InvalidInput("The file of patients needs the columns split, index and patient_id.")
            return {(row["split"], int(row["index"])): row["patient_id"] for row in rows}
    except (UnicodeDecodeError, csv.Error, ValueError, TypeError) as error:
        raise InvalidInput(
            "The file of patients is not readable CSV. Write it again or remove it."
        ) from error
