"""The report on identifying elements: every row of the profile is found, and no value is told."""

from __future__ import annotations

from pathlib import Path

import pytest
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
)

from libs.core.errors import InvalidInput
from libs.data.confidentiality_profile import _actions, action_of
from libs.data.identification import IdentificationReport, report_identification

from .conftest import write_image
from .dicom_files import CANARY, chest, gradient, planted, write, write_tree


def _set(tmp_path: Path, data: Dataset, *, syntax: str = ExplicitVRLittleEndian) -> Path:
    write(data, tmp_path / "NORMAL" / "a.dcm", syntax=syntax)
    return tmp_path


def _report(path: Path) -> IdentificationReport:
    report = report_identification(path)
    assert report is not None
    return report


def _files(report: IdentificationReport) -> dict[str, int]:
    return {attribute.name: attribute.files for attribute in report.attributes}


@pytest.mark.parametrize(
    "syntax", [ImplicitVRLittleEndian, ExplicitVRLittleEndian, DeflatedExplicitVRLittleEndian]
)
def test_every_planted_element_is_reported_and_no_value_is(tmp_path: Path, syntax: str) -> None:
    data = planted()
    report = _report(_set(tmp_path, data, syntax=syntax))
    expected = {element.keyword for element in data if element.tag in _actions()}
    assert len(expected) > 400
    assert expected <= _files(report).keys()
    assert report.files_with_private_elements == 1
    text = report.canonical_json().decode() + repr(report)
    for value in (CANARY, "1901", "7313", "073Y"):
        assert value not in text
    assert IdentificationReport.from_json(report.canonical_json()) == report


def test_the_profile_is_that_of_the_standard() -> None:
    known = {
        0x00100010: "Z",  # patient's name
        0x00100020: "Z/D",
        0x00100030: "Z",
        0x00080050: "Z",  # accession number
        0x00080080: "X/Z/D",  # institution
        0x00080018: "U",
        0x00181000: "X/Z/D",  # device serial number
        0x00104000: "X",  # patient comments
        0x00400275: "X",  # request attributes
        0x50101234: "X",
        0x60023000: "X",
        0x60020010: None,
        0x00280010: None,
        0x7FE00010: None,
        0x00090010: "X",
    }
    assert {tag: action_of(tag) for tag in known} == known


def test_elements_without_a_value_are_not_counted_and_those_in_sequences_are(tmp_path: Path) -> None:
    inner = Dataset()
    inner.RequestedProcedureID, inner.AccessionNumber = "77", ""
    data = chest(PatientName="", PatientID=" ", RequestAttributesSequence=[inner], ReferringPhysicianName="")
    files = _files(_report(_set(tmp_path, data)))
    assert files["RequestedProcedureID"] == files["RequestAttributesSequence"] == 1
    assert not {"PatientName", "PatientID", "AccessionNumber", "ReferringPhysicianName"} & files.keys()


def test_files_are_counted_by_what_they_say_of_themselves(tmp_path: Path) -> None:
    write_tree(tmp_path)
    for i, said in enumerate(("YES", "NO", "YES ")):
        data = chest(gradient(seed=i), BurnedInAnnotation=said, PatientIdentityRemoved="YES")
        write(data, tmp_path / "NORMAL" / f"{i}.dcm")
    report = _report(tmp_path)
    assert (report.files, report.files_with_attributes) == (9, 9)
    assert (report.burned_in, report.burned_in_untold, report.said_removed) == (2, 6, 3)
    assert _files(report)["PatientName"] == 9


def test_big_endian_headers_are_read(tmp_path: Path) -> None:
    assert _files(_report(_set(tmp_path, chest(), syntax=ExplicitVRBigEndian)))["PatientName"] == 1


def test_other_sources_have_no_report(tmp_path: Path) -> None:
    write_image(tmp_path / "NORMAL" / "a.png")
    assert report_identification(tmp_path) is None


def test_sequences_without_end_are_refused(tmp_path: Path) -> None:
    inner = Dataset()
    for _ in range(40):
        outer = Dataset()
        outer.RequestAttributesSequence = [inner]
        inner = outer
    data = chest(RequestAttributesSequence=[inner])
    with pytest.raises(InvalidInput, match="without end"):
        _report(_set(tmp_path, data))


def test_a_broken_number_in_a_header_does_not_hide_the_rest(tmp_path: Path) -> None:
    path = _set(tmp_path, chest(PatientWeight="70.25"), syntax=ImplicitVRLittleEndian)
    file = path / "NORMAL" / "a.dcm"
    file.write_bytes(file.read_bytes().replace(b"70.25", b"7x.2y"))
    assert _files(_report(path))["PatientName"] == 1
