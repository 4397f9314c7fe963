"""One untrusted DICOM file to one gray square, if it is a frontal chest radiograph for display.

What a header says has to fit; where it is silent about body part or view, whoever labelled the file answers
for it. No text of an error quotes a header, and of a header only the elements listed here are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.uid import (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
)

from libs.core.errors import InvalidInput
from libs.data.dicom_display import displayed
from libs.data.dicom_file import read_elements, untrusted
from libs.data.dicom_pixels import SYNTAXES, decode
from libs.data.images import Form, check_pixels, check_size, square_from_array

MODALITIES = ("CR", "DX")
BODY_PARTS = ("CHEST", "THORAX")
VIEWS = ("AP", "PA")

_SOP_CLASSES = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
)
_LYING = ("HFP", "HFS", "HFDR", "HFDL", "FFDR", "FFDL", "FFP", "FFS")  # says how a patient lies, not the view
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "PatientID", "IssuerOfPatientID", "BodyPartExamined",
    "ViewPosition", "PatientPosition", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames",
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "PixelPaddingValue",
    "PixelPaddingRangeLimit", "ModalityLUTSequence", "RescaleSlope", "RescaleIntercept", "VOILUTSequence",
    "WindowCenter", "WindowWidth", "VOILUTFunction", "PixelData",
]  # fmt: skip


@dataclass(frozen=True, eq=False)
class DicomImage:
    """A square (size, size) uint8, 0 is black; and whose it is, which stays with the reader of a data set."""

    pixels: npt.NDArray[np.uint8]
    patient: tuple[str, str] | None = field(repr=False)
    instance: str = field(repr=False)


def load_dicom(path: Path, *, size: int) -> DicomImage:
    """The radiograph of a DICOM file, as it is meant to be shown: rescaled, windowed, black on 0.

    `patient` is issuer and id, None where the header has no id. Raises InvalidInput with the reason for
    anything but one frontal chest radiograph, and TooLarge, before a pixel is decoded, for a file or an image
    larger than any radiograph.
    """
    check_size(size)
    with untrusted():
        header = _read(path)
        pixels = displayed(decode(header), header)
        patient = str(header.get("PatientID") or "").strip()
        issuer = str(header.get("IssuerOfPatientID") or "").strip()
        instance = str(header.SOPInstanceUID)
    return DicomImage(
        pixels=square_from_array(pixels, size=size),
        patient=(issuer, patient) if patient else None,
        instance=instance,
    )


def measure_dicom(path: Path) -> Form:
    """The form of a DICOM file, from its header. Raises what `load_dicom` does before it decodes."""
    with untrusted():
        header = _read(path)
        return Form(height=header.Rows, width=header.Columns, channels=1, bits=header.BitsStored)


def show_dicom(path: Path) -> npt.NDArray[np.uint8]:
    """The whole radiograph, not cropped. Shape (rows, columns). Raises what `load_dicom` does."""
    with untrusted():
        header = _read(path)
        return displayed(decode(header), header)


def _read(path: Path) -> Dataset:
    """The elements of _TAGS of a radiograph that may be decoded."""
    header = read_elements(path, _TAGS, syntaxes=SYNTAXES)
    _check(header)
    return header


def _check(header: Dataset) -> None:
    """Raises InvalidInput unless this is a frontal chest radiograph of a form that is decoded here."""
    view = str(header.get("ViewPosition") or "") or str(header.get("PatientPosition") or "")
    for fits, reason in (
        (header.Modality in MODALITIES, "its modality is neither CR nor DX"),
        (header.SOPClassUID in _SOP_CLASSES, "it is a kind of object other than CR, DX or secondary capture"),
        ((header.get("BodyPartExamined") or "CHEST") in BODY_PARTS, "its body part is not the chest"),
        (not view or view in {*VIEWS, *_LYING}, "its view is neither AP nor PA"),
        (int(header.get("NumberOfFrames") or 1) == 1, "it has several frames"),
        (
            header.SamplesPerPixel == 1
            and header.PhotometricInterpretation in {"MONOCHROME1", "MONOCHROME2"},
            "it is in colour",
        ),
        (
            header.BitsAllocated in {8, 16} and 1 <= header.BitsStored <= header.BitsAllocated,
            "its pixels have neither 8 nor 16 bits",
        ),
        (
            header.get("HighBit", header.BitsStored - 1) == header.BitsStored - 1
            and header.PixelRepresentation in {0, 1},
            "its pixels' bits lie where the standard puts none",
        ),
    ):
        if not fits:
            raise InvalidInput(
                f"A DICOM file is not a chest radiograph that Trefoil reads: {reason}. Remove it."
            )
    if min(header.Rows, header.Columns) < 1:
        raise ValueError("an image has pixels")
    check_pixels(header.Rows * header.Columns)
