"""The elements of one untrusted DICOM file: nothing is unpacked or kept before its size was looked at."""

from __future__ import annotations

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from io import SEEK_END, BytesIO
from pathlib import Path

from pydicom import dcmread
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.errors import BytesLengthException, InvalidDicomError
from pydicom.filebase import DicomBytesIO
from pydicom.filereader import read_file_meta_info
from pydicom.filewriter import write_file_meta_info
from pydicom.uid import DeflatedExplicitVRLittleEndian, ExplicitVRLittleEndian

from libs.core.errors import CallerError, InvalidInput, TooLarge

MAX_FILE_BYTES = 256 * 2**20
"""Twice what the largest radiograph takes without compression. Also after inflating."""

_BROKEN = (
    ArithmeticError, AttributeError, BytesLengthException, EOFError, InvalidDicomError, LookupError,
    MemoryError, NotImplementedError, OSError, RuntimeError, SyntaxError, TypeError, ValueError,
    struct.error, zlib.error,
)  # fmt: skip
_START = bytes(128) + b"DICM"
_GROUP_LENGTH_BYTES = 12
"""The element that says how long the file's own group is; it does not count itself."""


def is_dicom(path: Path) -> bool:
    """Whether the file begins as DICOM files do, whatever its name."""
    with path.open("rb") as stream:
        return stream.read(len(_START))[-4:] == _START[-4:]


@contextmanager
def untrusted() -> Iterator[None]:
    """pydicom reports a broken file as nearly anything, and quotes headers in warnings, logs and errors."""
    logger = logging.getLogger("pydicom")
    disabled, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except CallerError:
        raise
    except _BROKEN:
        raise InvalidInput(
            "A DICOM file cannot be read: it is damaged or cut short. Export it again or remove it."
        ) from None
    finally:
        logger.disabled = disabled


def read_elements(path: Path, tags: list[str] | None, *, syntaxes: frozenset[str] | None = None) -> Dataset:
    """The elements `tags` of a file; None: all but the pixels.

    With `syntaxes`, another transfer syntax is refused before anything is unpacked. To be called within
    `untrusted`. Raises InvalidInput, and TooLarge for a file that is, or inflates to, more than
    MAX_FILE_BYTES.
    """
    with path.open("rb") as stream:
        data = stream.read(MAX_FILE_BYTES + 1)
    if len(data) > MAX_FILE_BYTES:
        raise _too_many_bytes()
    if data[128 : len(_START)] != _START[128:]:
        raise InvalidInput(
            "A file is not DICOM as it is stored in files (PS3.10: a preamble, then DICM). Write it again "
            "with that header, or move it out of the data set."
        )
    meta = read_file_meta_info(path)
    if syntaxes is not None and meta.TransferSyntaxUID not in syntaxes:
        raise InvalidInput(
            "A DICOM file is compressed in a way that Trefoil does not read. Convert it to Explicit VR "
            "Little Endian, JPEG, JPEG-LS, JPEG 2000 or RLE."
        )
    if meta.TransferSyntaxUID == DeflatedExplicitVRLittleEndian:
        data = _inflated(data, meta)
    return dcmread(BytesIO(data), specific_tags=tags, stop_before_pixels=tags is None)


def _inflated(data: bytes, meta: FileMetaDataset) -> bytes:
    """The same file without compression: pydicom would inflate all of it, however much that is."""
    begin = len(_START) + _GROUP_LENGTH_BYTES + int(meta.FileMetaInformationGroupLength)
    inflater = zlib.decompressobj(-zlib.MAX_WBITS)
    plain = inflater.decompress(data[begin:], MAX_FILE_BYTES + 1)
    if len(plain) > MAX_FILE_BYTES:
        raise _too_many_bytes()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file = DicomBytesIO(_START)
    file.seek(0, SEEK_END)
    write_file_meta_info(file, meta, enforce_standard=False)
    return bytes(file.getvalue()) + plain


def _too_many_bytes() -> TooLarge:
    return TooLarge(
        f"A DICOM file has more than {MAX_FILE_BYTES // 2**20} MiB. It is not a radiograph; remove it."
    )
