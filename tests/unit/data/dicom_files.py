"""DICOM files written for tests by pydicom, which the reader did not write."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from PIL import Image
from pydicom.datadict import dictionary_VR, keyword_for_tag
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DigitalXRayImageStorageForPresentation,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    generate_uid,
)

from libs.data.confidentiality_profile import _actions

PATIENT = "777-Secret"
SHARED = Path(__file__).parents[3].parent / "shared" / "data" / "dicom"
"""Real public files beside the checkout; tests that need them skip where they are missing."""


def gradient(*, height: int = 40, width: int = 30, high: int = 255, seed: int = 0) -> npt.NDArray[np.uint16]:
    """Values from 0 to `high` that rise from left to right, with a little of their own for each seed."""
    rise = np.linspace(0, high, width)[None, :] * np.linspace(0.5, 1, height)[:, None]
    rise[0, 0], rise[-1, -1] = 0, high
    rise[1, 1] = seed % (high + 1)
    return rise.astype(np.uint16)


def chest(pixels: npt.NDArray[Any] | None = None, *, bits: int = 8, **elements: Any) -> Dataset:
    """A frontal chest radiograph without compression. `elements` replace elements; None removes one."""
    pixels = gradient() if pixels is None else pixels
    data = Dataset()
    data.SOPClassUID = DigitalXRayImageStorageForPresentation
    data.SOPInstanceUID = generate_uid()
    data.Modality, data.BodyPartExamined, data.ViewPosition = "DX", "CHEST", "PA"
    data.PatientID, data.PatientName = PATIENT, "Doe^Secret"
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.Rows, data.Columns = pixels.shape[-2:]
    data.BitsAllocated = 8 if bits <= 8 else 16
    data.BitsStored, data.HighBit, data.PixelRepresentation = bits, bits - 1, 0
    data.PixelData = pixels.astype("<u1" if bits <= 8 else "<u2").tobytes()
    for name, value in elements.items():
        if value is None:
            del data[name]
        else:
            setattr(data, name, value)
    return data


def jpeg(pixels: npt.NDArray[Any], *, kind: str = "JPEG") -> bytes:
    """One encapsulated frame."""
    stream = BytesIO()
    Image.fromarray(pixels.astype(np.uint8)).save(stream, kind)
    return encapsulate([stream.getvalue()])


def write(data: Dataset, path: Path, *, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write `data` as a file, making its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = data.SOPClassUID
    meta.MediaStorageSOPInstanceUID = data.SOPInstanceUID
    meta.TransferSyntaxUID = syntax
    little = syntax != ExplicitVRBigEndian
    file = FileDataset(None, data, file_meta=meta, preamble=b"\0" * 128, is_little_endian=little)
    if syntax != ExplicitVRLittleEndian and "PixelData" in file and file.PixelData[:4] == b"\xfe\xff\x00\xe0":
        file["PixelData"].is_undefined_length = True
    file.save_as(path, enforce_file_format=True)
    return path


def write_tree(root: Path) -> Path:
    """Two patients of each class, the first of each with two images, in folders as archives make them."""
    for label, name in enumerate(("NORMAL", "PNEUMONIA")):
        for i, patient in enumerate("AAB"):
            pixels = gradient(seed=10 * label + i)
            image = chest(pixels, PatientID=f"{PATIENT}-{label}{patient}")
            write(image, root / name / patient / f"series{i}" / f"{i}.dcm")
    return root


CANARY = "CANARY7313"
_TEXTS = {"LO": CANARY, "SH": CANARY, "PN": f"{CANARY}^Jane", "LT": CANARY, "ST": CANARY, "UT": CANARY}
_TEXTS |= {"UC": CANARY, "DA": "19010203", "TM": "010203", "DT": "19010203010203", "UI": "1.2.7313"}
_TEXTS |= {"AE": CANARY, "CS": CANARY, "UR": f"http://{CANARY}", "AS": "073Y", "OB": b"CANARY7313"}
_OF_ANOTHER_FILE = {"SOPInstanceUID", "MediaStorageSOPInstanceUID"}


def planted() -> Dataset:
    """A radiograph with a value in every element of the profile that has a text."""
    data = chest()
    for tag in _actions():
        keyword = keyword_for_tag(tag)
        if tag >> 16 in {0, 2, 4} or not keyword or keyword in _OF_ANOTHER_FILE or tag >> 16 >= 0xFFF0:
            continue
        kind = dictionary_VR(tag)
        if kind in _TEXTS:
            data.add_new(tag, kind, _TEXTS[kind])
    data.add_new(0x00091001, "LO", CANARY)
    data.add_new(0x00090010, "LO", CANARY)
    data.add_new(0x60000022, "LO", "x")  # not in the table
    data.add_new(0x60004000, "LT", CANARY)
    return data
