"""Results as DICOM files: other people's tools open them, find no fault, and find the source beside them."""

from __future__ import annotations

import shutil
import subprocess
import warnings
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import pytest
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.uid import generate_uid

from libs.core.errors import InvalidInput
from libs.data.dicom_image import show_dicom
from libs.data.dicom_result import NOTICE, Answer, ResultForm, check_source, write_result

from .conftest import write_image
from .dicom_files import SHARED, chest, gradient, write

NOW = datetime(2026, 11, 25, 9, 30, 5, tzinfo=UTC)
ANSWER = Answer(
    probability=0.8734,
    threshold=0.5,
    label="PNEUMONIA",
    model_id="study-1/release",
    plan_hash="ab" * 32,
    version="0.1.0",
)
FORMS = [ResultForm.CAPTURE, ResultForm.SR]
needs_dcmtk = pytest.mark.skipif(
    not shutil.which("dsrdump"), reason="dcmtk is not installed; see tools/system_packages.sh"
)
needs_dciodvfy = pytest.mark.skipif(
    not shutil.which("dciodvfy"), reason="dicom3tools is not installed; see tools/system_packages.sh"
)


@pytest.fixture
def source(tmp_path: Path) -> Path:
    elements = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
    data = chest(gradient(height=300, width=400), **elements, PatientBirthDate="19700101", PatientSex="F")
    data.SpecificCharacterSet, data.PatientName = "ISO_IR 100", "Müller^Jane"
    data.InstitutionName, data.StudyDate, data.StudyTime = "Elsewhere", "20261101", "080000"
    data.PatientOrientation = ["L", "F"]
    return write(data, tmp_path / "source.dcm")


def _written(source: Path, form: ResultForm) -> Path:
    path = source.with_name(f"{form}.dcm")
    write_result(source, path, ANSWER, form=form, now=NOW)
    return path


def _run(*command: object) -> str:
    done = subprocess.run([*map(str, command)], capture_output=True, check=False, errors="replace")
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout + done.stderr


@pytest.mark.parametrize("form", FORMS)
def test_a_result_is_in_the_study_of_its_source_under_ids_of_its_own(source: Path, form: ResultForm) -> None:
    before = source.read_bytes()
    old, first, second = (dcmread(path) for path in (source, _written(source, form), _written(source, form)))
    for name in ("PatientID", "PatientName", "PatientBirthDate", "StudyInstanceUID", "StudyDate"):
        assert first[name].value == old[name].value
    assert "InstitutionName" not in first
    ids = {data.SOPInstanceUID for data in (old, first)} | {data.SeriesInstanceUID for data in (old, first)}
    assert len(ids) == 4
    assert second.SOPInstanceUID != first.SOPInstanceUID or second.filename == first.filename
    assert old.SOPInstanceUID in str(first)
    assert source.read_bytes() == before


def test_a_capture_shows_the_image_and_the_answer_below_it(source: Path) -> None:
    made, shown = dcmread(_written(source, ResultForm.CAPTURE)), show_dicom(source)
    assert made.Modality == "OT"
    assert made.SourceImageSequence[0].ReferencedSOPInstanceUID == dcmread(source).SOPInstanceUID
    assert np.array_equal(made.pixel_array[:300], shown)
    band = made.pixel_array[300:]
    assert band.shape[0] > 40
    assert (band > 128).mean() > 0.02
    assert NOTICE in made.DerivationDescription


def test_the_text_of_a_narrow_image_is_broken_and_none_is_cut(tmp_path: Path) -> None:
    elements = {"StudyInstanceUID": generate_uid(), "SeriesInstanceUID": generate_uid()}
    source = write(chest(gradient(height=61, width=51), **elements), tmp_path / "a.dcm")
    made = dcmread(_written(source, ResultForm.CAPTURE))
    band = made.pixel_array[61:]
    assert band.shape[1] == 256
    assert not band[:, -2:].any()


def test_a_report_has_score_model_and_notice(source: Path) -> None:
    made = dcmread(_written(source, ResultForm.SR))
    found = {item.ConceptNameCodeSequence[0].CodeValue: item for item in made.ContentSequence}
    assert str(found["probability"].MeasuredValueSequence[0].NumericValue) == "0.8734"
    assert found["model-id"].TextValue == "study-1/release"
    assert found["111003"].TextValue == "0.1.0"
    assert found["notice"].TextValue == NOTICE
    reference = found["121112"].ReferencedSOPSequence[0].ReferencedSOPInstanceUID
    assert reference == dcmread(source).SOPInstanceUID


@pytest.mark.parametrize("form", FORMS)
def test_pydicom_reads_every_element_without_a_warning(source: Path, form: ResultForm) -> None:
    def visit(_: Dataset, element: object) -> None:
        str(element)

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        made = dcmread(_written(source, form))
        made.walk(visit)


@needs_dcmtk
@pytest.mark.parametrize("form", FORMS)
def test_dcmtk_opens_a_result(source: Path, form: ResultForm, tmp_path: Path) -> None:
    path = _written(source, form)
    assert "W:" not in _run("dcmdump", path)
    if form is ResultForm.CAPTURE:
        _run("dcmdjpeg", path, tmp_path / "plain.dcm")
        return
    text = _run("dsrdump", "+Pl", path)
    assert "Probability of pneumonia" in text
    assert "0.8734" in text
    assert NOTICE in text
    assert not any(line.startswith(("E:", "W:")) for line in text.splitlines())


@needs_dciodvfy
@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("real", [False, True], ids=["made up", "real"])
def test_dciodvfy_finds_no_error_in_a_result(
    source: Path, form: ResultForm, real: bool, tmp_path: Path
) -> None:
    if real:
        if not SHARED.is_dir():
            pytest.skip(f"the public DICOM files are not at {SHARED}")
        source = Path(shutil.copy(SHARED / "rsna_16d7f894_PA.dcm", tmp_path / "real.dcm"))
    told = subprocess.run(
        ["dciodvfy", str(_written(source, form))], capture_output=True, check=False, errors="replace"
    )
    lines = (told.stdout + told.stderr).splitlines()
    assert [line for line in lines if line.startswith("Error")] == []


def test_a_result_needs_a_dicom_image_and_a_study(tmp_path: Path) -> None:
    write_image(tmp_path / "a.png")
    with pytest.raises(InvalidInput, match="needs a DICOM image"):
        write_result(tmp_path / "a.png", tmp_path / "b.dcm", ANSWER, form=ResultForm.SR, now=NOW)
    alone = write(chest(), tmp_path / "alone.dcm")
    with pytest.raises(InvalidInput, match="names no study"):
        check_source(alone, tmp_path / "b.dcm")
    with pytest.raises(InvalidInput, match="names no study"):
        write_result(alone, tmp_path / "b.dcm", ANSWER, form=ResultForm.SR, now=NOW)
    assert not (tmp_path / "b.dcm").exists()


def test_a_path_that_cannot_be_written_is_said(source: Path) -> None:
    check_source(source, source.parent / "b.dcm")
    for path in (source, source.parent / "no" / "b.dcm"):
        with pytest.raises(InvalidInput, match="cannot be written"):
            check_source(source, path)
    with pytest.raises(InvalidInput, match="cannot be written"):
        write_result(source, source.parent / "no" / "b.dcm", ANSWER, form=ResultForm.SR, now=NOW)
