"""What is said of a data set's form."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from libs.core.errors import InvalidInput
from libs.data.dataset import SourceKind
from libs.data.schema import DatasetSchema, Sides, describe

from .conftest import npz_arrays, write_image
from .dicom_files import PATIENT, chest, gradient, write, write_tree

_GOOD = (
    b'{"bits":8,"channels":1,"classes":["NORMAL","PNEUMONIA"],"height":{"high":30,"low":30},'
    b'"modality":"chest X-ray","source":"folder","version":1,"width":{"high":40,"low":40}}'
)


def test_a_folder_is_described_by_its_headers(class_folders: Path) -> None:
    schema = describe(class_folders)
    assert schema.source is SourceKind.FOLDER
    assert (schema.height, schema.width) == (Sides(low=30, high=30), Sides(low=40, high=40))
    assert (schema.channels, schema.bits) == (1, 8)
    assert schema.classes == ("NORMAL", "PNEUMONIA")


def test_colour_and_depth_are_the_most_that_occurs(class_folders: Path) -> None:
    Image.new("RGB", (40, 30)).save(class_folders / "NORMAL" / "colour.png")
    Image.fromarray(np.zeros((30, 40), np.uint16)).save(class_folders / "NORMAL" / "deep.png")
    assert (describe(class_folders).channels, describe(class_folders).bits) == (3, 16)


def test_an_archive_is_described_by_its_headers(tmp_path: Path) -> None:
    np.savez(tmp_path / "set.npz", **npz_arrays())
    schema = describe(tmp_path / "set.npz")
    assert (schema.source, schema.height) == (SourceKind.NPZ, Sides(low=28, high=28))


def test_a_dicom_tree_is_described_by_its_headers(tmp_path: Path) -> None:
    write(chest(gradient(high=4095), bits=12), write_tree(tmp_path) / "NORMAL" / "deep.dcm")
    schema = describe(tmp_path)
    assert (schema.source, schema.bits, schema.width.high) == (SourceKind.DICOM, 12, 30)


def test_the_size_of_a_single_image_cannot_be_told(class_folders: Path) -> None:
    schemas = []
    for height in (1350, 1399):
        write_image(class_folders / "NORMAL" / "large.png", shape=(height, 40))
        schemas.append(describe(class_folders))
    assert schemas[0] == schemas[1]
    assert schemas[0].height == Sides(low=1, high=1408)


def test_nothing_of_a_file_or_patient_is_in_it(tmp_path: Path) -> None:
    text = describe(write_tree(tmp_path)).canonical_json().decode()
    assert PATIENT not in text
    assert "series" not in text


def test_it_travels_as_canonical_json(class_folders: Path) -> None:
    schema = describe(class_folders)
    assert DatasetSchema.from_json(schema.canonical_json()) == schema
    assert schema.canonical_json() == _GOOD


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{}",
        b"[1]",
        b"\xff",
        b'{"version":2}',
        b'{"patients":["Secret"]}',
        _GOOD + b" " * 20_000,
        _GOOD.replace(b'"low":30', b'"low":31'),
        _GOOD.replace(b'"bits":8', b'"bits":8,"patient":"Secret"'),
    ],
)
def test_what_is_no_schema_is_refused_without_quoting_it(text: bytes) -> None:
    with pytest.raises(InvalidInput) as caught:
        DatasetSchema.from_json(text)
    assert "Secret" not in str(caught.value)


def test_a_path_without_data_is_refused(tmp_path: Path) -> None:
    (tmp_path / "NORMAL").mkdir()
    with pytest.raises(InvalidInput, match="no images here"):
        describe(tmp_path)
