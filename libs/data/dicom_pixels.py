"""Stored values of one frame, from any transfer syntax read here.

Decoders are given the one frame of the file after what it claims was compared with the header; their arrays
have to have the header's shape. RLE is unpacked here, because its length is known only afterwards.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any

import numpy as np
import numpy.typing as npt
from pydicom.dataset import Dataset
from pydicom.encaps import get_frame
from pydicom.uid import (
    HTJ2K,
    JPEG2000,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    HTJ2KLosslessRPCL,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)

from libs.core.errors import InvalidInput
from libs.data.codestream import Codestream, read_codestream

Pixels = npt.NDArray[np.generic]

_NATIVE = (
    ImplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
)
_RLE_HEADER_BYTES = 64
_JPEG_END = b"\xff\xd9"


def _jpeg(frame: bytes) -> Any:
    import imagecodecs  # noqa: PLC0415 - loads shared libraries, which most files do without

    return imagecodecs.jpeg8_decode(frame)


def _jpeg_ls(frame: bytes) -> Any:
    import imagecodecs  # noqa: PLC0415

    return imagecodecs.jpegls_decode(frame)


def _jpeg_2000(frame: bytes) -> Any:
    import imagecodecs  # noqa: PLC0415

    return imagecodecs.jpeg2k_decode(frame, numthreads=1)


@dataclass(frozen=True)
class _Codec:
    """`markers` are the kinds of stream that the transfer syntax allows."""

    decode: Callable[[bytes], Any]
    markers: frozenset[int]


_CODECS: Mapping[str, _Codec] = MappingProxyType(
    {
        JPEGBaseline8Bit: _Codec(_jpeg, frozenset({0xC0})),
        JPEGExtended12Bit: _Codec(_jpeg, frozenset({0xC0, 0xC1})),
        JPEGLossless: _Codec(_jpeg, frozenset({0xC3})),
        JPEGLosslessSV1: _Codec(_jpeg, frozenset({0xC3})),
        JPEGLSLossless: _Codec(_jpeg_ls, frozenset({0xF7})),
        JPEGLSNearLossless: _Codec(_jpeg_ls, frozenset({0xF7})),
        JPEG2000Lossless: _Codec(_jpeg_2000, frozenset({0})),
        JPEG2000: _Codec(_jpeg_2000, frozenset({0})),
        HTJ2KLossless: _Codec(_jpeg_2000, frozenset({0})),
        HTJ2KLosslessRPCL: _Codec(_jpeg_2000, frozenset({0})),
        HTJ2K: _Codec(_jpeg_2000, frozenset({0})),
    }
)

SYNTAXES: frozenset[str] = frozenset({*_NATIVE, RLELossless, *_CODECS})
"""All transfer syntaxes that are read."""


def decode(header: Dataset) -> Pixels:
    """The frame's stored values. Shape (Rows, Columns), signed where PixelRepresentation says so.

    Of values in wider words only BitsStored bits are kept: old files have overlays in the others. Raises
    InvalidInput, or what `dicom_file.untrusted` turns into it.
    """
    syntax = header.file_meta.TransferSyntaxUID
    if syntax in _CODECS:
        return _compressed(header, _CODECS[syntax])
    raw = _unpacked(header) if syntax == RLELossless else header.PixelData
    order = ">" if syntax == ExplicitVRBigEndian else "<"
    count = header.Rows * header.Columns
    stored = np.dtype(f"{order}u{header.BitsAllocated // 8}")
    if not count * stored.itemsize <= len(raw) <= count * stored.itemsize + 1:  # one byte pads to even
        raise ValueError("another number of pixels than the header says")
    values = np.frombuffer(raw, stored, count).reshape(header.Rows, header.Columns)
    return _of_bits(values.astype(stored.newbyteorder("=")), header.BitsStored, header)


def _compressed(header: Dataset, codec: _Codec) -> Pixels:
    frame = get_frame(header.PixelData, 0, number_of_frames=1)
    claimed = read_codestream(frame)
    if (claimed.rows, claimed.columns) != (header.Rows, header.Columns):
        raise InvalidInput(
            "A DICOM file's image has another size than its header says. Export it again or remove it."
        )
    if claimed.channels != 1 or claimed.marker not in codec.markers or not _fits(claimed, header):
        raise InvalidInput(
            "A DICOM file's compressed image is of another kind or depth than its header says. Export it "
            "again or remove it."
        )
    # libjpeg-turbo makes up what a stream lacks at its end, and CharLS searches for the end for seconds.
    if claimed.marker and not frame.rstrip(b"\0").endswith(_JPEG_END):
        raise ValueError("a stream that was cut short")
    values: Pixels = np.asarray(codec.decode(frame))
    if values.shape != (header.Rows, header.Columns) or values.dtype.kind not in "ui":
        raise ValueError("one frame of one channel was asked for")
    # Streams may be deeper than BitsStored says; a sign is always where BitsStored puts it.
    signed = header.PixelRepresentation == 1
    return _of_bits(values, header.BitsStored if signed else claimed.precision_bits, header)


def _fits(claimed: Codestream, header: Dataset) -> bool:
    return 2 <= claimed.precision_bits <= header.BitsAllocated and (
        not claimed.signed or header.PixelRepresentation == 1
    )


def _of_bits(values: Pixels, bits: int, header: Dataset) -> Pixels:
    """The lowest `bits` bits of every value, as the number they are: with a sign if the header says so."""
    spare = 8 * values.dtype.itemsize - bits
    signed = header.PixelRepresentation == 1
    words = values.view(np.dtype(f"{'i' if signed else 'u'}{values.dtype.itemsize}"))
    kept: Pixels = (words << spare) >> spare
    return kept


def _unpacked(header: Dataset) -> bytes:
    """An RLE frame (PS3.5 annex G): one segment for each byte of a pixel, the most significant first."""
    frame = get_frame(header.PixelData, 0, number_of_frames=1)
    wide, count = header.BitsAllocated // 8, header.Rows * header.Columns
    begins = np.frombuffer(frame, "<u4", _RLE_HEADER_BYTES // 4).tolist()
    if begins[0] != wide:
        raise ValueError("another number of segments than bytes of a pixel")
    ends = [*begins[2 : wide + 1], len(frame)]
    pixels = np.empty((count, wide), np.uint8)
    for i, (begin, end) in enumerate(zip(begins[1 : wide + 1], ends, strict=True)):
        if not _RLE_HEADER_BYTES <= begin <= end <= len(frame):
            raise ValueError("segments lie one after the other")
        pixels[:, wide - 1 - i] = np.frombuffer(_runs(frame[begin:end], count), np.uint8)
    return pixels.tobytes()


def _runs(segment: bytes, count: int) -> bytearray:
    """`count` bytes of literal and repeated runs; never more, whatever the segment says."""
    out = bytearray()
    at = 0
    while len(out) < count:
        control = segment[at]
        if control < 128:
            out += segment[at + 1 : at + 2 + control]
            at += 2 + control
        elif control > 128:
            out += segment[at + 1 : at + 2] * (257 - control)
            at += 2
        else:
            at += 1
    if len(out) > count:
        raise ValueError("a run goes beyond the last pixel")
    return out
