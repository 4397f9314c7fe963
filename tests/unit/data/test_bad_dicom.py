"""The table of bad DICOM: each case is refused with a reason, before a pixel is decoded, and names nobody."""

from __future__ import annotations

import logging
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForProcessing,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
)

from libs.core.errors import CallerError, InvalidInput, TooLarge
from libs.data import dicom_image
from libs.data.dataset import load_dataset
from libs.data.dicom_image import load_dicom
from libs.data.schema import describe

from .dicom_files import PATIENT, chest, gradient, jpeg, write, write_tree

SECRET_NAME = "person777_virus_1"
COLOUR = np.repeat(gradient()[..., None], 3, axis=2)

HEADERS: list[tuple[str, dict[str, Any], str]] = [
    ("ct", {"Modality": "CT", "SOPClassUID": CTImageStorage}, "modality"),
    ("no modality", {"Modality": None}, "damaged"),
    ("modality that is a list", {"Modality": ["DX", "CT"]}, "modality"),
    ("ct that says dx", {"SOPClassUID": CTImageStorage}, "kind of object"),
    ("for processing", {"SOPClassUID": DigitalXRayImageStorageForProcessing}, "kind of object"),
    ("foot", {"BodyPartExamined": "FOOT"}, "body part"),
    ("lateral", {"ViewPosition": "LL"}, "view"),
    ("lateral, said elsewhere", {"ViewPosition": None, "PatientPosition": "LATERAL"}, "view"),
    ("several frames", {"NumberOfFrames": 2, "PixelData": bytes(2 * 40 * 30)}, "several frames"),
    (
        "colour",
        {"SamplesPerPixel": 3, "PhotometricInterpretation": "RGB", "PixelData": bytes(3 * 40 * 30)},
        "colour",
    ),
    (
        "three values a pixel",
        {"SamplesPerPixel": 3, "PlanarConfiguration": 0, "PixelData": bytes(3 * 40 * 30)},
        "colour",
    ),
    ("palette", {"PhotometricInterpretation": "PALETTE COLOR"}, "colour"),
    ("32 bits", {"BitsAllocated": 32, "PixelData": bytes(4 * 40 * 30)}, "8 nor 16 bits"),
    ("more bits than are there", {"BitsStored": 12}, "8 nor 16 bits"),
    ("no pixels", {"PixelData": None}, "damaged"),
    ("fewer pixels", {"PixelData": bytes(40 * 29)}, "damaged"),
    ("more pixels than it says", {"Rows": 20}, "damaged"),
    ("no rows", {"Rows": None}, "damaged"),
    ("zero rows", {"Rows": 0}, "damaged"),
    ("blank", {"BitsStored": 7, "PixelData": bytes(40 * 30)}, "blank"),
    ("no window", {"WindowCenter": "1", "WindowWidth": "0"}, "damaged"),
    ("not a number", {"RescaleSlope": "1e308", "RescaleIntercept": "1e308"}, "blank"),
    ("no patient", {"PatientID": ""}, "no PatientID"),
]


def _tree_with(tmp_path: Path, data: Dataset, **syntax: str) -> Path:
    write(data, write_tree(tmp_path) / "PNEUMONIA" / f"{SECRET_NAME}.dcm", **syntax)
    return tmp_path


def _refused(path: Path, text: str) -> CallerError:
    with pytest.raises(CallerError, match=text) as caught:
        load_dataset(path, size=16)
    error = caught.value
    assert SECRET_NAME not in str(error)
    assert PATIENT not in "".join([str(error), *getattr(error, "__notes__", ())])
    return error


@pytest.mark.parametrize(("elements", "text"), [row[1:] for row in HEADERS], ids=[row[0] for row in HEADERS])
def test_a_file_that_is_no_frontal_chest_radiograph_is_refused_with_the_reason(
    tmp_path: Path, elements: dict[str, Any], text: str
) -> None:
    error = _refused(_tree_with(tmp_path, chest(**elements)), text)
    assert any(SECRET_NAME in note for note in error.__notes__)


def _text_file(root: Path) -> None:
    (root / f"{SECRET_NAME}.txt").write_text("notes")


def _without_preamble(root: Path) -> None:
    path = root / "PNEUMONIA" / f"{SECRET_NAME}.dcm"
    path.write_bytes(write(chest(), path).read_bytes()[132:])


def _copied(root: Path) -> None:
    shutil.copy(root / "NORMAL/A/series0/0.dcm", root / "PNEUMONIA" / f"{SECRET_NAME}.dcm")


def _outside_of_classes(root: Path) -> None:
    write(chest(), root / f"{SECRET_NAME}.dcm")


def _in_both_classes(root: Path) -> None:
    write(chest(), root / "PNEUMONIA" / "normal" / f"{SECRET_NAME}.dcm")


def _beside_parts(root: Path) -> None:
    (root / "train").mkdir()
    (root / "NORMAL").rename(root / "train" / "NORMAL")


def _only_test(root: Path) -> None:
    for name in ("NORMAL", "PNEUMONIA"):
        (root / "test").mkdir(exist_ok=True)
        (root / name).rename(root / "test" / name)


def _a_patient_on_both_sides(root: Path) -> None:
    for part in ("train", "test"):
        for name in ("NORMAL", "PNEUMONIA"):
            write(chest(PatientID=f"{name}"), root / part / name / "a.dcm")
    for name in ("NORMAL", "PNEUMONIA"):
        shutil.rmtree(root / name)


def _linked_twice(root: Path) -> None:
    (root / "PNEUMONIA" / "again").symlink_to(root)


def _labels(text: str) -> Callable[[Path], None]:
    def write_labels(root: Path) -> None:
        (root / "labels.csv").write_text(text)

    write_labels.__name__ = text.partition("\n")[0]
    return write_labels


def _one_class(root: Path) -> None:
    shutil.rmtree(root / "PNEUMONIA")


TREES: list[tuple[Callable[[Path], None], str]] = [
    (_text_file, "is not DICOM"),
    (_without_preamble, "is not DICOM"),
    (_copied, "occurs twice"),
    (_outside_of_classes, "in no folder named"),
    (_in_both_classes, "or in both"),
    (_beside_parts, "beside the folders"),
    (_only_test, "nothing to train on"),
    (_a_patient_on_both_sides, "both train and test"),
    (_linked_twice, "in this data set already"),
    (_one_class, "no images of class PNEUMONIA"),
    (_labels("file,label\nother.dcm,NORMAL\n"), "does not list every image"),
    (_labels("label,x\nNORMAL,1\n"), "needs the columns file and label"),
    (_labels("file,label,more\nNORMAL/A/series0/0.dcm,COVID,\n"), "neither NORMAL nor PNEUMONIA"),
    (_labels("file,finding\nNORMAL/A/series0/0.dcm,No Finding|Mass\n"), "neither NORMAL nor PNEUMONIA"),
    (_labels("file,patient_id\nNORMAL/A/series0/0.dcm,\n"), "without a patient_id"),
]


@pytest.mark.parametrize(("change", "text"), TREES, ids=[change.__name__ for change, _ in TREES])
def test_a_bad_tree_is_refused_without_naming_a_file(
    tmp_path: Path, change: Callable[[Path], None], text: str
) -> None:
    root = write_tree(tmp_path / "set")
    change(root)
    _refused(root, text)


def test_a_header_without_rows_describes_nothing(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="damaged"):
        describe(_tree_with(tmp_path, chest(Rows=0)))


# ---------------------------------------------------------------- hostile files


@pytest.fixture
def never_decoded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dicom_image, "_decode", lambda _: pytest.fail("it was decoded"))


@pytest.mark.usefixtures("never_decoded")
def test_an_image_that_claims_more_pixels_than_a_radiograph_is_refused_before_it_is_decoded(
    tmp_path: Path,
) -> None:
    data = chest(Rows=65535, Columns=65535, PixelData=jpeg(gradient(), kind="JPEG2000"))
    with pytest.raises(TooLarge, match="million pixels"):
        load_dicom(write(data, tmp_path / "a.dcm", syntax=JPEG2000Lossless), size=16)


@pytest.mark.parametrize(("syntax", "kind"), [(JPEGBaseline8Bit, "JPEG"), (JPEG2000Lossless, "JPEG2000")])
def test_a_stream_that_is_larger_than_its_header_says_is_refused(
    tmp_path: Path, syntax: str, kind: str
) -> None:
    data = chest(gradient(), PixelData=jpeg(gradient(height=3000, width=3000), kind=kind))
    with pytest.raises(InvalidInput, match="another size than its header"):
        load_dicom(write(data, tmp_path / "a.dcm", syntax=syntax), size=16)


def test_a_stream_beyond_what_pillow_opens_is_too_large(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("PIL.Image.MAX_IMAGE_PIXELS", 100)
    data = chest(gradient(), PixelData=jpeg(gradient()))
    with pytest.raises(TooLarge, match="million pixels"):
        load_dicom(write(data, tmp_path / "a.dcm", syntax=JPEGBaseline8Bit), size=16)


@pytest.mark.usefixtures("never_decoded")
@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, JPEGLosslessSV1])
def test_other_compressions_are_refused_before_anything_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: str
) -> None:
    data = chest(PixelData=jpeg(gradient())) if syntax == JPEGLosslessSV1 else chest()
    path = write(data, tmp_path / "a.dcm", syntax=syntax)
    monkeypatch.setattr(dicom_image, "dcmread", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(InvalidInput, match="compressed in a way"):
        load_dicom(path, size=16)


def test_a_file_larger_than_any_radiograph_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_image, "MAX_FILE_BYTES", 1000)
    with pytest.raises(TooLarge, match="It is not a radiograph"):
        load_dicom(write(chest(), tmp_path / "a.dcm"), size=16)


def test_a_file_cut_anywhere_is_refused(tmp_path: Path) -> None:
    path = write(chest(), tmp_path / "a.dcm")
    whole = path.read_bytes()
    for cut in (0, 100, 140, 200, 400, len(whole) // 2, len(whole) - 3):
        path.write_bytes(whole[:cut])
        with pytest.raises(InvalidInput):
            load_dicom(path, size=16)


def test_a_file_damaged_anywhere_is_read_or_refused(tmp_path: Path) -> None:
    data = chest(gradient(high=4095), bits=12, WindowCenter="2000", WindowWidth="3000")
    path = write(data, tmp_path / "a.dcm")
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(300):
        broken = bytearray(whole)
        for at in rng.integers(128, len(whole) - gradient().size * 2, 4):
            broken[at] = rng.integers(0, 256)
        path.write_bytes(bytes(broken))
        with suppress(CallerError):
            assert load_dicom(path, size=16).pixels.shape == (16, 16)


def test_what_pydicom_says_of_a_header_reaches_no_log(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = write(chest(SOPInstanceUID="1.2.3.44"), tmp_path / "a.dcm")
    path.write_bytes(path.read_bytes().replace(b"1.2.3.44", b"Doe^John"))
    with warnings.catch_warnings(record=True) as caught, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        load_dicom(path, size=16)
    assert not caught
    assert not caplog.records
