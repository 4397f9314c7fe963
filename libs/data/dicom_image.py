"""One untrusted DICOM file to one gray square, if it is a frontal chest radiograph for display.

What a header says has to fit; where it is silent about body part or view, whoever labelled the file answers
for it. No text of an error quotes a header, and of a header only the elements listed here are kept.
"""

from __future__ import annotations

import logging
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from io import BytesIO
from pathlib import Path

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filereader import read_file_meta_info
from pydicom.pixels.processing import apply_modality_lut, apply_voi, apply_windowing
from pydicom.uid import (
    JPEG2000,
    UID,
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    SecondaryCaptureImageStorage,
)

from libs.core.errors import CallerError, InvalidInput, TooLarge
from libs.data.images import Form, check_pixels, check_size, square_from_array, too_large

MAX_FILE_BYTES = 256 * 2**20
"""Twice what the largest radiograph takes without compression."""

MODALITIES = ("CR", "DX")
BODY_PARTS = ("CHEST", "THORAX")
VIEWS = ("AP", "PA")

_NATIVE = (ImplicitVRLittleEndian, ExplicitVRLittleEndian)
_COMPRESSED = (JPEGBaseline8Bit, JPEG2000Lossless, JPEG2000)
# Not the deflated syntax: pydicom inflates all of it before anything can be checked.
_SOP_CLASSES = (
    ComputedRadiographyImageStorage,
    DigitalXRayImageStorageForPresentation,
    SecondaryCaptureImageStorage,
)
_LYING = ("HFP", "HFS", "HFDR", "HFDL", "FFDR", "FFDL", "FFP", "FFS")  # says how a patient lies, not the view
_TAGS = [
    "SOPClassUID", "SOPInstanceUID", "Modality", "PatientID", "IssuerOfPatientID", "BodyPartExamined",
    "ViewPosition", "PatientPosition", "SamplesPerPixel", "PhotometricInterpretation", "NumberOfFrames",
    "Rows", "Columns", "BitsAllocated", "BitsStored", "HighBit", "PixelRepresentation", "ModalityLUTSequence",
    "RescaleSlope", "RescaleIntercept", "VOILUTSequence", "WindowCenter", "WindowWidth", "VOILUTFunction",
    "PixelData",
]  # fmt: skip
_BROKEN = (
    ArithmeticError, AttributeError, BytesLengthException, EOFError, InvalidDicomError, LookupError,
    MemoryError, OSError, RuntimeError, SyntaxError, TypeError, ValueError, struct.error,
)  # fmt: skip


@dataclass(frozen=True, eq=False)
class DicomImage:
    """A square (size, size) uint8, 0 is black; and whose it is, which stays with the reader of a data set."""

    pixels: npt.NDArray[np.uint8]
    patient: tuple[str, str] | None = field(repr=False)
    instance: str = field(repr=False)


def is_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM files do, whatever its name."""
    with path.open("rb") as stream:
        return stream.read(132)[128:] == b"DICM"


def load_dicom(path: Path, *, size: int) -> DicomImage:
    """The radiograph of a DICOM file, as it is meant to be shown: rescaled, windowed, black on 0.

    `patient` is issuer and id, None where the header has no id. Raises InvalidInput with the reason for
    anything but one frontal chest radiograph, and TooLarge, before a pixel is decoded, for a file or an image
    larger than any radiograph.
    """
    check_size(size)
    with _untrusted():
        header = _read(path)
        _check(header)
        pixels = _displayed(_decode(header), header)
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
    with _untrusted():
        header = _read(path)
        _check(header)
        return Form(height=header.Rows, width=header.Columns, channels=1, bits=header.BitsStored)


@contextmanager
def _untrusted() -> Iterator[None]:
    """pydicom reports a broken file as nearly anything, and quotes headers in warnings, logs and errors."""
    logger = logging.getLogger("pydicom")
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except Image.DecompressionBombError:
        raise too_large() from None
    except CallerError:
        raise
    except _BROKEN:
        raise InvalidInput(
            "A DICOM file cannot be read: it is damaged or cut short. Export it again or remove it."
        ) from None
    finally:
        logger.disabled = disabled


def _read(path: Path) -> Dataset:
    """The elements of _TAGS. Nothing is unpacked before the file's size and syntax have been looked at."""
    with path.open("rb") as stream:
        data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise TooLarge(
            f"A DICOM file has more than {MAX_FILE_BYTES // 2**20} MiB. It is not a radiograph; remove it."
        )
    if data[128:132] != b"DICM":
        raise InvalidInput(
            "A file is not DICOM as it is stored in files (PS3.10: a preamble, then DICM). Write it again "
            "with that header, or move it out of the data set."
        )
    syntax = read_file_meta_info(path).TransferSyntaxUID
    if syntax not in {*_NATIVE, *_COMPRESSED}:
        raise InvalidInput(
            "A DICOM file is compressed in a way that Trefoil does not read. Convert it to Explicit VR "
            "Little Endian, JPEG Baseline or JPEG 2000."
        )
    return dcmread(BytesIO(data), specific_tags=_TAGS)


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
    ):
        if not fits:
            raise InvalidInput(
                f"A DICOM file is not a chest radiograph that Trefoil reads: {reason}. Remove it."
            )
    if min(header.Rows, header.Columns) < 1:
        raise ValueError("an image has pixels")
    check_pixels(header.Rows * header.Columns)


def _decode(header: Dataset) -> npt.NDArray[np.generic]:
    """Stored values. A compressed stream's own size must be that of the header, which has been checked."""
    if UID(header.file_meta.TransferSyntaxUID) in _COMPRESSED:
        frame = get_frame(header.PixelData, 0, number_of_frames=1)
        with Image.open(BytesIO(frame), formats=("JPEG", "JPEG2000")) as stream:
            if stream.size != (header.Columns, header.Rows):
                raise InvalidInput(
                    "A DICOM file's image has another size than its header says. Export it again or "
                    "remove it."
                )
    pixels: npt.NDArray[np.generic] = header.pixel_array
    if pixels.shape != (header.Rows, header.Columns):
        raise ValueError("one frame of one channel was asked for")
    return pixels


def _displayed(stored: npt.NDArray[np.generic], header: Dataset) -> npt.NDArray[np.uint8]:
    """8-bit pixels as a viewer shows them: modality LUT, VOI LUT or window, then MONOCHROME1 inverted.

    Without window, 8-bit images are taken as they are, and deeper ones from their darkest to their brightest
    pixel. Shape as `stored`.
    """
    values = np.asarray(apply_modality_lut(stored, header), np.float64)
    if header.get("VOILUTSequence"):
        values = apply_voi(np.rint(values).astype(np.int64), header).astype(np.float64)
        low, high = 0.0, 2.0 ** header.VOILUTSequence[0].LUTDescriptor[2] - 1
    elif header.get("WindowWidth") is not None and header.get("WindowCenter") is not None:
        values = apply_windowing(values, header)
        low, high = (float(end) for end in apply_windowing(np.array([-1e12, 1e12]), header))
    elif header.BitsStored == 8 and stored.dtype.kind == "u" and np.array_equal(values, stored):
        low, high = 0.0, 255.0
    else:
        low, high = float(values.min()), float(values.max())
    if not (np.isfinite(values).all() and high != low):
        raise InvalidInput("A DICOM file's image is blank, or its window is not usable. Remove it.")
    gray = np.rint(np.clip((values - low) / (high - low), 0, 1) * 255).astype(np.uint8)
    shown: npt.NDArray[np.uint8] = 255 - gray if header.PhotometricInterpretation == "MONOCHROME1" else gray
    return shown
