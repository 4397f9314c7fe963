"""Stored values to 8-bit gray as a viewer shows them (DICOM PS3.3 C.11.1, C.11.2, C.7.6.3.1.2)."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset

from libs.core.errors import InvalidInput
from libs.data.dicom_pixels import Pixels

Values = npt.NDArray[np.float64]


def displayed(stored: Pixels, header: Dataset) -> npt.NDArray[np.uint8]:
    """Modality LUT or rescale, VOI LUT or window, MONOCHROME1 inverted, padding black. Shape as `stored`.

    Without window, 8-bit images are taken as they are, and deeper ones from their darkest to their brightest
    pixel that is no padding. Of several windows or tables, the first. Raises InvalidInput for a blank image.
    """
    padding = _padding(stored, header)
    with np.errstate(over="ignore", invalid="ignore"):
        values = _modality(stored, header)
        shares = _voi(values, header)
        if shares is None and header.BitsStored == 8 and np.array_equal(values, stored) and stored.min() >= 0:
            shares = values / 255
        if shares is None:
            shares = _stretched(values, padding)
    if not np.isfinite(shares).all():
        raise _unusable()
    gray = np.rint(np.clip(shares, 0, 1) * 255).astype(np.uint8)
    if header.PhotometricInterpretation == "MONOCHROME1":
        gray = 255 - gray
    gray[padding] = 0
    return gray


def _modality(stored: Pixels, header: Dataset) -> Values:
    """What the values mean: through the table, else by slope and intercept."""
    if header.get("ModalityLUTSequence"):
        return _looked_up(stored.astype(np.int64), header.ModalityLUTSequence[0])[0]
    slope, intercept = header.get("RescaleSlope"), header.get("RescaleIntercept")
    values = stored.astype(np.float64)
    return values * float(1 if slope is None else slope) + float(0 if intercept is None else intercept)


def _voi(values: Values, header: Dataset) -> Values | None:
    """0 (black) to 1 through the table, else the window; None without either."""
    if header.get("VOILUTSequence"):
        if not np.isfinite(values).all():
            raise _unusable()
        shown, bits = _looked_up(np.rint(values).astype(np.int64), header.VOILUTSequence[0])
        return shown / (2.0**bits - 1)
    width, center = _first(header.get("WindowWidth")), _first(header.get("WindowCenter"))
    if width is None or center is None:
        return None
    function = str(header.get("VOILUTFunction") or "LINEAR").strip().upper()
    smallest = 1 if function == "LINEAR" else np.nextafter(0, 1)
    if not (np.isfinite([center, width]).all() and width >= smallest):
        raise _unusable()
    match function:
        case "LINEAR":  # c - 0.5 and w - 1: a window counts whole values
            if width == 1:
                return (values > center - 0.5).astype(np.float64)
            return (values - (center - 0.5)) / (width - 1) + 0.5
        case "LINEAR_EXACT":
            return (values - center) / width + 0.5
        case "SIGMOID":
            return 1 / (1 + np.exp(-4 * (values - center) / width))
    raise InvalidInput("A DICOM file's window has a form that Trefoil does not know. Export it again.")


def _stretched(values: Values, padding: npt.NDArray[np.bool_]) -> Values:
    shown = values[~padding]
    if not shown.size or not np.isfinite(shown).all() or shown.min() == shown.max():
        raise _unusable()
    stretched: Values = (values - shown.min()) / (shown.max() - shown.min())
    return stretched


def _looked_up(values: npt.NDArray[np.int64], table: Dataset) -> tuple[Values, int]:
    """(entries of a LUT, their bits). Values outside take the nearest entry."""
    count, first, bits = (int(number) for number in table.LUTDescriptor)
    count = count or 2**16
    if not 1 <= bits <= 16:
        raise ValueError("a table's entries have at most 16 bits")
    if first >= 2**15 and values.min() < 0:  # written as unsigned though the values have a sign
        first -= 2**16
    data = table.LUTData
    if isinstance(data, bytes):
        order = "<" if table.is_little_endian is not False else ">"
        entries = np.frombuffer(data, "u1" if len(data) in {count, count + 1} else f"{order}u2")
    else:
        entries = np.asarray(data, np.int64).reshape(-1) & 0xFFFF
    if len(entries) < count:
        raise ValueError("a table has as many entries as it says")
    return entries[np.clip(values - first, 0, count - 1)].astype(np.float64), bits


def _padding(stored: Pixels, header: Dataset) -> npt.NDArray[np.bool_]:
    """Where there is no image (C.7.5.1.1.2): the padding value, or the range up to its limit."""
    value = header.get("PixelPaddingValue")
    if value is None:
        return np.zeros(stored.shape, np.bool_)
    limit = header.get("PixelPaddingRangeLimit")
    ends = sorted((int(value), int(value if limit is None else limit)))
    values = stored.astype(np.int64)
    return (values >= ends[0]) & (values <= ends[1])


def _first(value: object) -> float | None:
    """The first of one or several numbers; None where there is none."""
    if value is None or value == "":
        return None
    if isinstance(value, (list, tuple)) or hasattr(value, "__getitem__"):
        return float(value[0]) if len(value) else None  # type: ignore[arg-type]
    return float(value)  # type: ignore[arg-type]


def _unusable() -> InvalidInput:
    return InvalidInput("A DICOM file's image is blank, or its window is not usable. Remove it.")
