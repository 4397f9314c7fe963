"""Trees of DICOM files."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless, JPEGBaseline8Bit

from libs.core.errors import CallerError, InvalidInput
from libs.data.dataset import load_dataset, load_train_and_test
from libs.data.dicom_image import load_dicom
from libs.data.schema import describe

from .dicom_files import PATIENT, SHARED, chest, gradient, jpeg, write, write_tree

needs_shared = pytest.mark.skipif(
    not SHARED.is_dir(), reason=f"the public DICOM files are not at {SHARED}; see the README for their source"
)


def test_class_folders_of_any_depth_give_labels_and_patients(tmp_path: Path) -> None:
    images = load_dataset(write_tree(tmp_path), size=16)
    assert images.labels.tolist() == [0, 0, 0, 1, 1, 1]
    assert images.patients == tuple(f"patient-{i:06d}" for i in (0, 0, 1, 2, 2, 3))


def test_ids_of_patients_stay_in_the_reader(tmp_path: Path) -> None:
    images = load_dataset(write_tree(tmp_path), size=16)
    assert not any(PATIENT in text for text in (*images.patients, *images.names, repr(images)))
    assert PATIENT not in repr(load_dicom(tmp_path / "NORMAL/A/series0/0.dcm", size=16))


def test_the_same_id_from_two_issuers_is_two_patients(tmp_path: Path) -> None:
    for i, name in enumerate(("NORMAL", "PNEUMONIA")):
        write(chest(IssuerOfPatientID=f"hospital {i}", PatientID="1"), tmp_path / name / "a.dcm")
    assert load_dataset(tmp_path, size=16).patient_count == 2


def test_a_file_is_known_by_its_content_whatever_its_name(tmp_path: Path) -> None:
    write_tree(tmp_path)
    for path in list(tmp_path.rglob("*.dcm")):
        path.rename(path.with_suffix(""))
    assert len(load_dataset(tmp_path, size=16)) == 6


def test_labels_csv_decides_over_folders(tmp_path: Path) -> None:
    write_tree(tmp_path)
    names = sorted(path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.dcm"))
    lines = [f"{name},{'PNEUMONIA' if i % 2 else 'normal'},{i}" for i, name in enumerate(names)]
    (tmp_path / "labels.csv").write_text("\n".join(["file,label,patient_id", *lines]))
    images = load_dataset(tmp_path, size=16)
    assert images.labels.tolist() == [0, 1] * 3
    assert images.patient_count == 6


def test_findings_in_the_words_of_nih_are_labels(tmp_path: Path) -> None:
    for i in range(3):
        write(chest(PatientID=str(i)), tmp_path / f"{i}.dcm")
    labels = "file,finding\n0.dcm,No Finding\n1.dcm,Pneumonia\n2.dcm,Infiltration|Pneumonia\n"
    (tmp_path / "labels.csv").write_text(labels)
    assert load_dataset(tmp_path, size=16).labels.tolist() == [0, 1, 1]


def test_official_parts_stay_apart(tmp_path: Path) -> None:
    write_tree(tmp_path / "train")
    for i, name in enumerate(("NORMAL", "PNEUMONIA")):
        write(chest(PatientID=f"other {i}"), tmp_path / "test" / name / "a.dcm")
    train, test = load_train_and_test(tmp_path, size=16)
    assert (len(train), len(test)) == (6, 2)
    assert not set(train.patients) & set(test.patients)


def test_a_medium_s_index_is_not_an_image(tmp_path: Path) -> None:
    write_tree(tmp_path)
    (tmp_path / "DICOMDIR").write_bytes(b"\0" * 128 + b"DICM")
    assert len(load_dataset(tmp_path, size=16)) == 6


def _mixed(root: Path, *, listed: bool = True) -> Path:
    """The first image of each class is JPEG or PNG; with `listed`, labels.csv names all patients."""
    write_tree(root)
    for label, (name, suffix) in enumerate((("NORMAL", "jpg"), ("PNEUMONIA", "png"))):
        path = root / name / "A" / "series0" / "0.dcm"
        Image.fromarray(gradient(seed=label).astype(np.uint8)).save(path.with_suffix(f".{suffix}"))
        path.unlink()
    names = sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_file())
    lines = [f"{name},{name[0]}{name.split('/')[1]}" for name in names]
    if listed:
        (root / "labels.csv").write_text("\n".join(["file,patient_id", *lines]))
    return root


def test_jpeg_and_png_among_dicom_files_are_read_with_listed_patients(tmp_path: Path) -> None:
    images = load_dataset(_mixed(tmp_path), size=16)
    assert [name.rpartition(".")[2] for name in images.names] == ["jpg", "dcm", "dcm", "png", "dcm", "dcm"]
    assert images.patients == tuple(f"patient-{i:06d}" for i in (0, 0, 1, 2, 2, 3))
    assert all(image.std() > 20 for image in images.images)


def test_a_jpeg_among_dicom_files_needs_a_listed_patient(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="tells no patient"):
        load_dataset(_mixed(tmp_path, listed=False), size=16)


def test_a_mixed_set_is_divided_by_patient(tmp_path: Path) -> None:
    train, test = load_train_and_test(_mixed(tmp_path), size=16, test_fraction=0.5)
    assert not set(train.patients) & set(test.patients)
    assert describe(tmp_path).source == "dicom"


# ---------------------------------------------------------------- pixels


def _shown(tmp_path: Path, data: object, **syntax: str) -> np.ndarray:
    return load_dicom(write(data, tmp_path / "a.dcm", **syntax), size=30).pixels.astype(int)  # type: ignore[arg-type]


def _square(high: int = 255) -> np.ndarray:
    return gradient(height=30, high=high)


def test_eight_bits_are_taken_as_they_are(tmp_path: Path) -> None:
    dim = _square() // 3
    assert np.array_equal(_shown(tmp_path, chest(dim)), dim)


def test_monochrome1_is_inverted(tmp_path: Path) -> None:
    data = chest(_square(), PhotometricInterpretation="MONOCHROME1")
    assert np.array_equal(_shown(tmp_path, data), 255 - _square().astype(int))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_twelve_bits_with_rescale_and_window_are_shown_as_the_standard_says(
    tmp_path: Path, photometric: str
) -> None:
    data = chest(_square(4095), bits=12, PhotometricInterpretation=photometric)
    data.RescaleSlope, data.RescaleIntercept = "2", "-1000"
    data.WindowCenter, data.WindowWidth = ["2000", "9"], ["3000", "9"]
    values = _square(4095).astype(float) * 2 - 1000
    expected = np.rint(np.clip((values - 1999.5) / 2999 + 0.5, 0, 1) * 255)  # PS3.3 C.11.2.1.2.1
    if photometric == "MONOCHROME1":
        expected = 255 - expected
    assert np.abs(_shown(tmp_path, data) - expected).max() <= 1


def test_a_falling_rescale_shows_the_negative(tmp_path: Path) -> None:
    data = chest(_square(4095), bits=12, RescaleSlope="-1", RescaleIntercept="4095")
    data.WindowCenter, data.WindowWidth = "2048", "4096"
    shown = _shown(tmp_path, data)
    assert shown[0, 0] == 255
    assert shown[-1, -1] == 0


def test_a_voi_table_goes_before_a_window(tmp_path: Path) -> None:
    table = type(chest())()
    table.LUTDescriptor = [4096, 0, 16]
    table["LUTDescriptor"].VR = "US"
    table.add_new("LUTData", "OW", (np.arange(4096, dtype="<u2")[::-1] * 16).tobytes())
    data = chest(_square(4095), bits=12, VOILUTSequence=[table], WindowCenter="10", WindowWidth="10")
    expected = np.rint((4095 - _square(4095).astype(int)) * 16 / 65535 * 255)
    assert np.abs(_shown(tmp_path, data) - expected).max() <= 1


def test_deep_images_without_window_reach_from_black_to_white(tmp_path: Path) -> None:
    shown = _shown(tmp_path, chest(_square(900) + 100, bits=12))
    assert (shown.min(), shown.max()) == (0, 255)


def test_jpeg_2000_gives_the_pixels_that_went_in(tmp_path: Path) -> None:
    data = chest(_square(), PixelData=jpeg(_square(), kind="JPEG2000"))
    assert np.array_equal(_shown(tmp_path, data, syntax=JPEG2000Lossless), _square())


def test_jpeg_baseline_gives_nearly_the_pixels_that_went_in(tmp_path: Path) -> None:
    smooth = np.broadcast_to(np.linspace(20, 230, 30), (30, 30)).astype(np.uint8)
    data = chest(smooth, PixelData=jpeg(smooth))
    assert np.abs(_shown(tmp_path, data, syntax=JPEGBaseline8Bit) - smooth.astype(int)).max() < 12


# ---------------------------------------------------------------- public files


@needs_shared
@pytest.mark.parametrize("name", ["rsna_16d7f894_PA", "rsna_c64d5667_AP", "nih_00000061_AP_effusion"])
def test_public_radiographs_are_read(name: str) -> None:
    pixels = load_dicom(SHARED / f"{name}.dcm", size=64).pixels
    assert pixels.std() > 20


@needs_shared
def test_a_public_radiograph_labelled_monochrome1_is_the_negative_of_the_other() -> None:
    one, other = (
        load_dicom(SHARED / f"rsna_16d7f894_{name}.dcm", size=64).pixels.astype(int)
        for name in ("PA", "header_monochrome1")
    )
    assert np.abs(255 - one - other).max() <= 2


@needs_shared
@pytest.mark.parametrize(
    ("name", "reason"),
    [("bodypart_ribcage", "body part"), ("modality_CT", "modality"), ("position_XX", "view")],
)
def test_public_files_whose_headers_were_altered_are_refused(name: str, reason: str) -> None:
    with pytest.raises(InvalidInput, match=reason):
        load_dicom(SHARED / f"nih_00000002_header_{name}.dcm", size=64)


@needs_shared
def test_a_public_set_with_findings_that_are_neither_class_is_refused() -> None:
    with pytest.raises(CallerError, match="neither NORMAL nor PNEUMONIA"):
        load_dataset(SHARED, size=64)
