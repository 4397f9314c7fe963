"""The table of bad input: each case is refused with a text that says what to do, and never names a file."""

import io
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from libs.core.errors import CallerError, InvalidInput, TooLarge
from libs.data import dataset, npz
from libs.data.dataset import Source, SourceKind, load_dataset

from .conftest import npz_arrays, write_image

SECRET_NAME = "person777_virus_1"


def _folder(tmp_path: Path) -> Path:
    write_image(tmp_path / "set" / "NORMAL" / "IM-0001-0001.png")
    write_image(tmp_path / "set" / "PNEUMONIA" / f"{SECRET_NAME}.png")
    return tmp_path / "set"


def _nothing(tmp_path: Path) -> Path:
    return tmp_path / "nothing"


def _empty_folder(tmp_path: Path) -> Path:
    (tmp_path / "set").mkdir()
    return tmp_path / "set"


def _empty_classes(tmp_path: Path) -> Path:
    for name in ("NORMAL", "PNEUMONIA"):
        (tmp_path / "set" / name).mkdir(parents=True)
    return tmp_path / "set"


def _one_class(tmp_path: Path) -> Path:
    write_image(tmp_path / "set" / "NORMAL" / "IM-0001-0001.png")
    return tmp_path / "set"


def _unknown_class(tmp_path: Path) -> Path:
    root = _folder(tmp_path)
    (root / "TUBERCULOSIS").mkdir()
    return root


def _only_test(tmp_path: Path) -> Path:
    _folder(tmp_path).rename(tmp_path / "test")
    return tmp_path


def _unreadable(tmp_path: Path) -> Path:
    root = _folder(tmp_path)
    (root / "PNEUMONIA" / f"{SECRET_NAME}.png").write_bytes(b"no image")
    return root


def _cut_short(tmp_path: Path) -> Path:
    root = _folder(tmp_path)
    path = root / "PNEUMONIA" / f"{SECRET_NAME}.png"
    path.write_bytes(path.read_bytes()[:-30])
    return root


def _empty_file(tmp_path: Path) -> Path:
    root = _folder(tmp_path)
    (root / "PNEUMONIA" / f"{SECRET_NAME}.png").write_bytes(b"")
    return root


def _text_among_images(tmp_path: Path) -> Path:
    root = _folder(tmp_path)
    (root / "PNEUMONIA" / f"{SECRET_NAME}.txt").write_text("notes")
    return root


def _folder_among_images(tmp_path: Path) -> Path:
    root = _folder(tmp_path)
    (root / "PNEUMONIA" / f"{SECRET_NAME}-2.png").mkdir()
    return root


def _wrong_type(tmp_path: Path) -> Path:
    (tmp_path / "set.xlsx").write_bytes(b"PK")
    return tmp_path / "set.xlsx"


def _labels_without_columns(tmp_path: Path) -> Path:
    root = _folder(tmp_path)
    (root / "labels.csv").write_text("a,b\n1,2\n")
    return root


def _labels_incomplete(tmp_path: Path) -> Path:
    root = _folder(tmp_path)
    (root / "labels.csv").write_text("file,patient_id\nNORMAL/IM-0001-0001.png,1\n")
    return root


def _labels_without_patient(tmp_path: Path) -> Path:
    root = _folder(tmp_path)
    (root / "labels.csv").write_text("file,patient_id\nNORMAL/IM-0001-0001.png\n")
    return root


def _labels_not_text(tmp_path: Path) -> Path:
    root = _folder(tmp_path)
    (root / "labels.csv").write_bytes(b"\xff\xfe\x00file")
    return root


FOLDERS: list[tuple[Callable[[Path], Path], str]] = [
    (_nothing, "nothing at this path"),
    (_empty_folder, "no such folder"),
    (_empty_classes, "no images here"),
    (_one_class, "no images of class PNEUMONIA"),
    (_unknown_class, "1 folder.s. have another name"),
    (_only_test, "nothing to train on"),
    (_unreadable, "cannot be read"),
    (_cut_short, "cannot be read"),
    (_empty_file, "cannot be read"),
    (_text_among_images, "not an image file"),
    (_folder_among_images, "not an image file"),
    (_wrong_type, "not a data set that Trefoil can read"),
    (_labels_without_columns, "needs the columns"),
    (_labels_incomplete, "does not list every image"),
    (_labels_without_patient, "without a patient_id"),
    (_labels_not_text, "not a CSV file in UTF-8"),
]


@pytest.mark.parametrize(("make", "text"), FOLDERS, ids=[make.__name__ for make, _ in FOLDERS])
def test_a_bad_folder_is_refused_without_naming_a_file(
    tmp_path: Path, make: Callable[[Path], Path], text: str
) -> None:
    with pytest.raises(InvalidInput, match=text) as caught:
        load_dataset(make(tmp_path), size=16)
    assert SECRET_NAME not in str(caught.value)


def test_the_owner_finds_the_broken_file_in_the_notes(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput) as caught:
        load_dataset(_unreadable(tmp_path), size=16)
    assert any(SECRET_NAME in note for note in caught.value.__notes__)


def _with(**changes: np.ndarray) -> dict[str, np.ndarray]:
    return npz_arrays() | changes


def _nan(key: str, *, shape: tuple[int, ...]) -> dict[str, np.ndarray]:
    values = np.zeros(shape, np.float32)
    values.flat[3] = np.nan
    return _with(**{key: values})


ARCHIVES: list[tuple[str, dict[str, np.ndarray], str]] = [
    ("no keys", {"other": np.zeros(3)}, "no train_images"),
    ("no labels", {"train_images": npz_arrays()["train_images"]}, "no train_labels"),
    ("one class", {k: np.zeros_like(v) for k, v in npz_arrays().items()}, "no images of class PNEUMONIA"),
    ("no images", {k: v[:0] for k, v in npz_arrays().items()}, "no images here"),
    ("nan pixels", _nan("train_images", shape=(6, 28, 28)), "NaN or infinite"),
    ("nan labels", _nan("train_labels", shape=(6,)), "NaN or infinite"),
    ("infinite pixels", _with(test_images=np.full((6, 28, 28), np.inf)), "NaN or infinite"),
    ("fractions beyond one", _with(train_images=np.full((6, 28, 28), 1.5)), "between 0 and 1"),
    ("twelve bits", _with(train_images=np.full((6, 28, 28), 4000, np.uint16)), "between 0 and 255"),
    ("negative", _with(train_images=np.full((6, 28, 28), -1, np.int16)), "between 0 and 255"),
    ("flat images", _with(train_images=np.zeros((6, 784), np.uint8)), "Images are an array"),
    ("volumes", _with(train_images=np.zeros((6, 8, 8, 8), np.uint8)), "Images are an array"),
    ("no pixels", _with(train_images=np.zeros((6, 0, 28), np.uint8)), "Images are an array"),
    ("fewer labels", _with(train_labels=np.zeros((5, 1), np.uint8)), "one label per image"),
    ("several labels", _with(train_labels=np.zeros((6, 14), np.uint8)), "one label per image"),
    ("a third class", _with(train_labels=np.full((6, 1), 2, np.uint8)), "Labels must be 0"),
    ("half a class", _with(train_labels=np.full((6, 1), 0.5)), "Labels must be 0"),
    ("objects", _with(train_images=np.array([object()] * 6)), "Python objects"),
    ("texts", _with(train_labels=np.array(["a"] * 6)), "Python objects or texts"),
]


@pytest.mark.parametrize(("arrays", "text"), [case[1:] for case in ARCHIVES], ids=[c[0] for c in ARCHIVES])
def test_a_bad_archive_is_refused(tmp_path: Path, arrays: dict[str, np.ndarray], text: str) -> None:
    np.savez(tmp_path / "set.npz", **arrays)
    with pytest.raises(InvalidInput, match=text):
        load_dataset(tmp_path / "set.npz", size=28)


class _Exploit:
    def __reduce__(self) -> tuple[object, tuple[str]]:
        return (Path.touch, (Path("unpickled"),))


def test_nothing_in_an_archive_is_unpickled(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    np.savez(tmp_path / "set.npz", **_with(train_labels=np.array([_Exploit()] * 6)))
    with pytest.raises(InvalidInput):
        load_dataset(tmp_path / "set.npz", size=28)
    assert not (tmp_path / "unpickled").exists()


def _npy(shape: tuple[int, ...], body: bytes) -> bytes:
    stream = io.BytesIO()
    header = {"descr": "|u1", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(stream, header)
    return stream.getvalue() + body


@pytest.mark.parametrize(
    ("shape", "text"),
    [((2**20, 2**10, 2**10), "more than 4 GiB"), ((6, 28, 29), "not as long"), ((-1, 28, 28), "not as long")],
)
def test_a_header_that_lies_is_refused_before_memory_is_taken(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: tuple[int, ...], text: str
) -> None:
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: pytest.fail("it was unpacked"))
    with zipfile.ZipFile(tmp_path / "set.npz", "w") as archive:
        archive.writestr("train_images.npy", _npy(shape, b"\0" * (6 * 28 * 28)))
    with pytest.raises(CallerError, match=text):
        load_dataset(tmp_path / "set.npz", size=28)


def test_a_zip_bomb_is_refused_by_its_header(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(npz, "MAX_BYTES", 2**20)
    np.savez_compressed(tmp_path / "set.npz", train_images=np.zeros((2**11, 32, 32), np.uint8))
    with pytest.raises(TooLarge):
        load_dataset(tmp_path / "set.npz", size=28)


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "set.npz"
    np.savez_compressed(path, **npz_arrays())
    whole = path.read_bytes()
    for cut in (0, 3, len(whole) // 2, len(whole) - 5):
        path.write_bytes(whole[:cut])
        with pytest.raises(InvalidInput, match="damaged"):
            load_dataset(path, size=28)
    broken = bytearray(whole)
    broken[200:260] = bytes(60)
    path.write_bytes(bytes(broken))
    with pytest.raises(InvalidInput):
        load_dataset(path, size=28)


def test_a_disk_that_refuses_is_told_in_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def read(path: Path, *, size: int) -> object:
        raise PermissionError(13, "Permission denied", str(path / SECRET_NAME))

    fake = Source(SourceKind.FOLDER, "anything", lambda _: True, read, lambda _: set())
    monkeypatch.setattr(dataset, "SOURCES", (fake,))
    with pytest.raises(InvalidInput, match="may read all of it") as caught:
        load_dataset(tmp_path, size=28)
    assert SECRET_NAME not in str(caught.value)
