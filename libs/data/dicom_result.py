"""A prediction as a DICOM file that a viewer opens: for the clinic that asked, and made on its own machine.

Two forms: a Secondary Capture with the answer as text below the image, which every viewer shows, and a
Comprehensive SR with the score as a number, which software reads. Both keep patient and study of the source,
name it, have UIDs of their own and a new series, and say that they are no diagnosis. Modules: PS3.3 A.8.1,
A.35.3; content of the SR after the style of TID 1500, with codes of our own where the standard has none.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image, ImageDraw, ImageFont
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    ComprehensiveSRStorage,
    ExplicitVRLittleEndian,
    SecondaryCaptureImageStorage,
    generate_uid,
)

from libs.core.errors import InvalidInput
from libs.data.dicom_file import is_dicom, read_elements, untrusted
from libs.data.dicom_image import show_dicom
from libs.data.result_form import ResultForm

NOTICE = "For research. Not for clinical use. Not a diagnosis."
"""In every result, as text that a person reads."""

MAKER = "Trefoil"
_CODES = "99TREFOIL"
_KEPT = (
    *("SpecificCharacterSet", "PatientName", "PatientID", "IssuerOfPatientID", "PatientBirthDate"),
    *("PatientSex", "StudyInstanceUID", "StudyDate", "StudyTime", "StudyID"),
    *("ReferringPhysicianName", "AccessionNumber", "StudyDescription"),
)
"""Patient and study: what puts the result beside its source in an archive."""

_TYPE_2 = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyDate", "StudyTime"),
    *("StudyID", "ReferringPhysicianName", "AccessionNumber"),
)
"""Elements that have to be there, empty if nothing is known."""

_MARGIN = 0.02
_TEXT_SHARE = 0.028
_MIN_TEXT_PIXELS = 14


@dataclass(frozen=True)
class Answer:
    """What a model said of one image. `probability` and `threshold` are 0 to 1; `version` is of Trefoil."""

    probability: float
    threshold: float
    label: str
    model_id: str
    plan_hash: str
    version: str

    @property
    def lines(self) -> tuple[str, ...]:
        """The answer as a person reads it."""
        return (
            f"{MAKER} {self.version}: probability of pneumonia {self.probability:.1%}",
            f"{self.label} at threshold {self.threshold:g}; model {self.model_id}",
            NOTICE,
        )


def check_source(source: Path, path: Path) -> None:
    """Raises InvalidInput if `write_result` could not write a result for `source` to `path`."""
    if not is_dicom(source):
        raise InvalidInput("A DICOM result needs a DICOM image: it goes into that image's study.")
    if not path.parent.is_dir() or path.is_dir() or (path.exists() and path.samefile(source)):
        raise InvalidInput(
            f"The result cannot be written to {path}. Choose a new file in a folder that is there."
        )
    with untrusted():
        _require_study(read_elements(source, None))


def write_result(source: Path, path: Path, answer: Answer, *, form: ResultForm, now: datetime) -> None:
    """Write the answer about the DICOM file `source` to `path`, replacing nothing but a file of that name.

    Raises InvalidInput for a source that is not DICOM or cannot be shown, and where nothing can be written.
    """
    if not is_dicom(source):
        raise InvalidInput("A DICOM result needs a DICOM image: it goes into that image's study.")
    with untrusted():
        header = read_elements(source, None)
        made = _begin(header, form=form, now=now)
        if form is ResultForm.SR:
            _describe(made, header, answer, now=now)
        else:
            _capture(made, header, show_dicom(source), answer)
    made.file_meta = _meta(made)
    try:
        made.save_as(path, enforce_file_format=True)
    except OSError as error:
        raise InvalidInput(f"The result cannot be written to {path}: {error.strerror}.") from error


def _begin(header: Dataset, *, form: ResultForm, now: datetime) -> Dataset:
    """Patient, study, series, equipment and instance."""
    made = Dataset()
    for name in _KEPT:
        if name in header:
            made[name] = header[name]
    for name in _TYPE_2:
        if name not in made:
            setattr(made, name, "")
    _require_study(header)
    made.SOPClassUID = ComprehensiveSRStorage if form is ResultForm.SR else SecondaryCaptureImageStorage
    made.SOPInstanceUID, made.SeriesInstanceUID = generate_uid(), generate_uid()
    made.Modality = "SR" if form is ResultForm.SR else "OT"
    made.SeriesDescription = f"{MAKER}: research only"
    made.SeriesNumber, made.InstanceNumber = "9001", "1"
    made.Manufacturer, made.ManufacturerModelName = MAKER, f"{MAKER} predict"
    made.ContentDate, made.ContentTime = now.strftime("%Y%m%d"), now.strftime("%H%M%S")
    made.InstanceCreationDate, made.InstanceCreationTime = made.ContentDate, made.ContentTime
    return made


def _require_study(header: Dataset) -> None:
    if not header.get("StudyInstanceUID") or not header.get("SeriesInstanceUID"):
        raise InvalidInput("The image names no study or no series, so a result has nowhere to go.")


def _meta(made: Dataset) -> FileMetaDataset:
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = made.SOPClassUID, made.SOPInstanceUID
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return meta


def _reference(header: Dataset) -> Dataset:
    """Class and instance of the source."""
    item = Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = header.SOPClassUID, header.SOPInstanceUID
    return item


# ---------------------------------------------------------------- Secondary Capture


def _capture(made: Dataset, header: Dataset, shown: npt.NDArray[np.uint8], answer: Answer) -> None:
    pixels = _with_text(shown, answer.lines)
    made.ConversionType = "WSD"
    made.BodyPartExamined = "CHEST"  # what `show_dicom` makes sure of
    made.ImageType = ["DERIVED", "SECONDARY"]
    made.SoftwareVersions = answer.version
    made.PatientOrientation = header.get("PatientOrientation") or ""
    made.DerivationDescription = f"Answer of a {MAKER} model written below the image. {NOTICE}"
    made.SourceImageSequence = [_reference(header)]
    made.SamplesPerPixel, made.PhotometricInterpretation = 1, "MONOCHROME2"
    made.Rows, made.Columns = pixels.shape
    made.BitsAllocated = made.BitsStored = 8
    made.HighBit, made.PixelRepresentation = 7, 0
    if header.get("BurnedInAnnotation") in {"YES", "NO"}:  # about identities: our own text has none
        made.BurnedInAnnotation = header.BurnedInAnnotation
    data = pixels.tobytes()
    made.PixelData = data + bytes(len(data) % 2)
    made["PixelData"].VR = "OB"


def _with_text(shown: npt.NDArray[np.uint8], lines: Sequence[str]) -> npt.NDArray[np.uint8]:
    """The image with a black band below it and the lines in white on that: nothing is covered."""
    width = max(shown.shape[1], 256)
    size = max(_MIN_TEXT_PIXELS, round(width * _TEXT_SHARE))
    margin = max(4, round(width * _MARGIN))
    wrapped = [
        part for line in lines for part in _wrapped(line, ImageFont.load_default(size), width - 2 * margin)
    ]
    band = Image.new("L", (width, round(1.4 * size) * len(wrapped) + 2 * margin), 0)
    draw = ImageDraw.Draw(band)
    for number, line in enumerate(wrapped):
        at = (margin, margin + number * round(1.4 * size))
        draw.text(at, line, fill=255, font=ImageFont.load_default(size))
    padded = np.zeros((shown.shape[0], width), np.uint8)
    padded[:, : shown.shape[1]] = shown
    return np.vstack([padded, np.asarray(band, np.uint8)])


def _wrapped(line: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont, width: int) -> list[str]:
    """The line in parts that fit, broken at spaces where that is possible, else anywhere."""
    parts, rest = [], line
    while rest and font.getlength(rest) > width:
        fits = next(end for end in range(len(rest), 0, -1) if end == 1 or font.getlength(rest[:end]) <= width)
        space = rest.rfind(" ", 1, fits + 1)
        end = space if space > 0 else fits
        parts.append(rest[:end])
        rest = rest[end:].lstrip()
    return [*parts, rest] if rest else parts


# ---------------------------------------------------------------- Structured Report


def _describe(made: Dataset, header: Dataset, answer: Answer, *, now: datetime) -> None:
    made.ReferencedPerformedProcedureStepSequence = []
    made.PerformedProcedureCodeSequence = []
    made.CurrentRequestedProcedureEvidenceSequence = [_evidence(header)]
    made.CompletionFlag, made.VerificationFlag = "COMPLETE", "UNVERIFIED"
    made.ValueType, made.ContinuityOfContent = "CONTAINER", "SEPARATE"
    made.ConceptNameCodeSequence = [_code("result", _CODES, "Result of a research model")]
    made.ContentSequence = [
        _item(
            "HAS OBS CONTEXT", "CODE", ("121005", "DCM", "Observer Type"), code=("121007", "DCM", "Device")
        ),
        _item("HAS OBS CONTEXT", "UIDREF", ("121012", "DCM", "Device Observer UID"), uid=_device_uid()),
        _item("HAS OBS CONTEXT", "TEXT", ("121013", "DCM", "Device Observer Name"), text=MAKER),
        _item("CONTAINS", "TEXT", ("notice", _CODES, "Notice"), text=NOTICE),
        _image(header),
        _probability("probability", "Probability of pneumonia", answer.probability),
        _probability("threshold", "Threshold", answer.threshold),
        _item("CONTAINS", "TEXT", ("label", _CODES, "Class at the threshold"), text=answer.label),
        _item("CONTAINS", "TEXT", ("model-id", _CODES, "Model"), text=answer.model_id),
        _item("CONTAINS", "TEXT", ("plan", _CODES, "Hash of the model's plan"), text=answer.plan_hash),
        _item("CONTAINS", "TEXT", ("111003", "DCM", "Algorithm Version"), text=answer.version),
        _item("CONTAINS", "DATETIME", ("time", _CODES, "Answered"), moment=now.strftime("%Y%m%d%H%M%S")),
    ]


def _device_uid() -> str:
    """One UID for this software, the same in all results."""
    return str(generate_uid(entropy_srcs=[MAKER, "predict"]))


def _evidence(header: Dataset) -> Dataset:
    series, study = Dataset(), Dataset()
    series.ReferencedSOPSequence = [_reference(header)]
    series.SeriesInstanceUID = header.SeriesInstanceUID
    study.ReferencedSeriesSequence = [series]
    study.StudyInstanceUID = header.StudyInstanceUID
    return study


def _code(value: str, scheme: str, meaning: str) -> Dataset:
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, scheme, meaning
    return item


def _item(
    relationship: str,
    kind: str,
    name: tuple[str, str, str],
    *,
    text: str = "",
    uid: str = "",
    moment: str = "",
    code: tuple[str, str, str] | None = None,
) -> Dataset:
    """One content item with the value that its kind has."""
    item = Dataset()
    item.RelationshipType, item.ValueType = relationship, kind
    item.ConceptNameCodeSequence = [_code(*name)]
    if text:
        item.TextValue = text
    if uid:
        item.UID = uid
    if moment:
        item.DateTime = moment
    if code is not None:
        item.ConceptCodeSequence = [_code(*code)]
    return item


def _image(header: Dataset) -> Dataset:
    item = _item("CONTAINS", "IMAGE", ("121112", "DCM", "Source of Measurement"))
    item.ReferencedSOPSequence = [_reference(header)]
    return item


def _probability(value: str, meaning: str, share: float) -> Dataset:
    item = _item("CONTAINS", "NUM", (value, _CODES, meaning))
    measured = Dataset()
    measured.NumericValue = f"{share:.4f}"
    measured.MeasurementUnitsCodeSequence = [_code("1", "UCUM", "no units")]
    item.MeasuredValueSequence = [measured]
    return item
