"""The table of bad DICOM: each case is refused with a reason, before a pixel is decoded, and names nobody."""

from __future__ import annotations

import dataclasses
import logging
import shutil
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import imagecodecs
import numpy as np
import pytest
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    JPEG2000,
    CTImageStorage,
    DeflatedExplicitVRLittleEndian,
    DigitalXRayImageStorageForProcessing,
    HTJ2KLossless,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPIPHTJ2KReferenced,
    RLELossless,
)

from libs.core.errors import CallerError, InvalidInput, TooLarge
from libs.data import dicom_file, dicom_image, dicom_pixels
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
    ("blank", {"BitsStored": 7, "HighBit": 6, "PixelData": bytes(40 * 30)}, "blank"),
    ("bits beside the lowest", {"BitsStored": 7}, "bits lie where"),
    ("a sign of another kind", {"PixelRepresentation": 2}, "bits lie where"),
    (
        "nothing but padding",
        {"BitsStored": 7, "HighBit": 6, "PixelPaddingValue": 0, "PixelPaddingRangeLimit": 255},
        "blank",
    ),
    ("no window", {"WindowCenter": "1", "WindowWidth": "0"}, "window is not usable"),
    ("a window below nothing", {"WindowCenter": "1", "WindowWidth": "-5"}, "window is not usable"),
    ("a window that is no number", {"WindowCenter": "1", "WindowWidth": "1e999"}, "window is not usable"),
    (
        "a window of a new kind",
        {"WindowCenter": "1", "WindowWidth": "9", "VOILUTFunction": "CUBIC"},
        "does not know",
    ),
    ("no bits", {"BitsAllocated": None}, "damaged"),
    ("no sign", {"PixelRepresentation": None}, "damaged"),
    ("no photometric interpretation", {"PhotometricInterpretation": None}, "damaged"),
    ("no kind of object", {"SOPClassUID": CTImageStorage, "Modality": None}, "damaged"),
    ("no channels", {"SamplesPerPixel": None}, "damaged"),
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


def _jpeg_in_name_only(root: Path) -> None:
    (root / f"{SECRET_NAME}.jpg").write_text("notes")


def _damaged_jpeg(root: Path) -> None:
    (root / "NORMAL" / f"{SECRET_NAME}.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(100))
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    (root / "labels.csv").write_text("\n".join(["file,patient_id", *(f"{name},1" for name in names)]))


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
    (_jpeg_in_name_only, "neither JPEG nor PNG"),
    (_damaged_jpeg, "cannot be read"),
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
    for module, name in ((dicom_image, "decode"), (dicom_pixels, "_jpeg"), (dicom_pixels, "_jpeg_2000")):
        monkeypatch.setattr(module, name, lambda *_: pytest.fail("it was decoded"))
    codecs = {
        syntax: dataclasses.replace(codec, decode=lambda _: pytest.fail("it was decoded"))
        for syntax, codec in dicom_pixels._CODECS.items()
    }
    monkeypatch.setattr(dicom_pixels, "_CODECS", codecs)


@pytest.mark.usefixtures("never_decoded")
def test_an_image_that_claims_more_pixels_than_a_radiograph_is_refused_before_it_is_decoded(
    tmp_path: Path,
) -> None:
    data = chest(Rows=65535, Columns=65535, PixelData=jpeg(gradient(), kind="JPEG2000"))
    with pytest.raises(TooLarge, match="million pixels"):
        load_dicom(write(data, tmp_path / "a.dcm", syntax=JPEG2000Lossless), size=16)


@pytest.fixture
def only_streams_are_decoded(monkeypatch: pytest.MonkeyPatch, never_decoded: None) -> None:
    monkeypatch.setattr(dicom_image, "decode", dicom_pixels.decode)


LARGE = gradient(height=3000, width=3000)


@pytest.mark.usefixtures("only_streams_are_decoded")
@pytest.mark.parametrize(
    ("syntax", "stream", "text"),
    [
        (JPEGBaseline8Bit, jpeg(LARGE), "another size than its header"),
        (JPEG2000Lossless, jpeg(LARGE, kind="JPEG2000"), "another size than its header"),
        (JPEGLosslessSV1, jpeg(LARGE), "another size than its header"),
        (JPEGLSLossless, encapsulate([imagecodecs.jpegls_encode(LARGE)]), "another size than its header"),
        (HTJ2KLossless, encapsulate([imagecodecs.htj2k_encode(LARGE)]), "another size than its header"),
        (JPEGLSLossless, jpeg(gradient()), "another kind or depth"),
        (JPEGBaseline8Bit, jpeg(COLOUR), "another kind or depth"),
        (JPEG2000, jpeg(COLOUR, kind="JPEG2000"), "another kind or depth"),
        (JPEGLSLossless, encapsulate([imagecodecs.jpegls_encode(gradient(high=4095))]), "kind or depth"),
        (JPEGBaseline8Bit, encapsulate([b"no stream at all"]), "damaged"),
        (JPEG2000, encapsulate([b"\xff\x4f\xff\x51"]), "damaged"),
    ],
    ids=[
        *("baseline", "2000", "lossless", "ls", "ht", "lossy in ls", "colour", "colour 2000"),
        *("12 bits in 8", "no stream", "no size"),
    ],
)
def test_a_stream_that_is_other_than_its_header_says_is_refused_before_it_is_decoded(
    tmp_path: Path, syntax: str, stream: bytes, text: str
) -> None:
    data = chest(gradient(), PixelData=stream)
    with pytest.raises(InvalidInput, match=text):
        load_dicom(write(data, tmp_path / "a.dcm", syntax=syntax), size=16)


@pytest.mark.usefixtures("never_decoded")
@pytest.mark.parametrize("syntax", [JPIPHTJ2KReferenced, "1.2.840.10008.1.2.4.107"], ids=["jpip", "hevc"])
def test_other_compressions_are_refused_before_anything_is_unpacked(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, syntax: str
) -> None:
    path = write(chest(PixelData=jpeg(gradient())), tmp_path / "a.dcm", syntax=syntax)
    monkeypatch.setattr(dicom_file, "dcmread", lambda *_, **__: pytest.fail("it was unpacked"))
    with pytest.raises(InvalidInput, match="compressed in a way"):
        load_dicom(path, size=16)


def test_a_file_larger_than_any_radiograph_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(dicom_file, "MAX_FILE_BYTES", 1000)
    with pytest.raises(TooLarge, match="It is not a radiograph"):
        load_dicom(write(chest(), tmp_path / "a.dcm"), size=16)


def test_a_file_that_inflates_beyond_any_radiograph_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = write(
        chest(np.zeros((2000, 2000), np.uint8)), tmp_path / "a.dcm", syntax=DeflatedExplicitVRLittleEndian
    )
    assert path.stat().st_size < 50_000
    monkeypatch.setattr(dicom_file, "MAX_FILE_BYTES", 100_000)
    with pytest.raises(TooLarge, match="It is not a radiograph"):
        load_dicom(path, size=16)


def _rle(segments: list[bytes]) -> bytes:
    begins = [64 + sum(map(len, segments[:i])) for i in range(len(segments))]
    header = np.array([len(segments), *begins, *[0] * (15 - len(segments))], "<u4").tobytes()
    return encapsulate([header + b"".join(segments)])


WHOLE = b"\x81\x07" * 9 + b"\xd1\x07"
"""9 runs of 128 and one of 48: 1200 pixels."""


@pytest.mark.parametrize(
    "frame",
    [
        _rle([WHOLE[:-2]]),
        _rle([WHOLE * 1000]),
        _rle([WHOLE[:-2] + b"\x81\x07"]),
        _rle([WHOLE, WHOLE]),
        _rle([]),
        encapsulate([bytes(10)]),
        encapsulate([np.array([1, 2**31, *[0] * 14], "<u4").tobytes()]),
    ],
    ids=["short", "repeated", "long", "two segments", "none", "no header", "outside"],
)
def test_runs_that_give_other_than_the_header_s_pixels_are_refused(tmp_path: Path, frame: bytes) -> None:
    image = chest(gradient(), WindowCenter="4", WindowWidth="9", PixelData=frame)
    path = write(image, tmp_path / "a.dcm", syntax=RLELossless)
    if frame == _rle([WHOLE * 1000]):  # what follows the last pixel is never unpacked
        assert load_dicom(path, size=16).pixels.std() == 0
        return
    with pytest.raises(InvalidInput, match="damaged"):
        load_dicom(path, size=16)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, JPEGLSLossless, JPEG2000Lossless, HTJ2KLossless])
def test_a_stream_cut_short_is_refused(tmp_path: Path, syntax: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (40, 30), np.uint8)
    encoder = {
        JPEGBaseline8Bit: imagecodecs.jpeg8_encode,
        JPEGLSLossless: imagecodecs.jpegls_encode,
        JPEG2000Lossless: imagecodecs.jpeg2k_encode,
        HTJ2KLossless: imagecodecs.htj2k_encode,
    }[syntax]
    stream = encoder(noise)
    for part in (3, 2, 1.3):
        data = chest(noise, PixelData=encapsulate([stream[: int(len(stream) / part)]]))
        with pytest.raises(InvalidInput):
            load_dicom(write(data, tmp_path / "a.dcm", syntax=syntax), size=16)


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
