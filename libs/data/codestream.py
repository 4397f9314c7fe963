"""What a compressed image says of itself: size, depth and channels, read from its first bytes.

A decoder allocates what the stream claims, whatever the DICOM header around it says; so the stream is asked
first. JPEG (ITU-T T.81 B.2.2), JPEG-LS (T.87 C.2.2) and JPEG 2000 (T.800 A.5.1, also in its box format).
"""

from __future__ import annotations

import struct
from dataclasses import dataclass

_JPEG_START, _SCAN = 0xD8, 0xDA
_FRAMES = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}
"""Markers that begin a frame: all kinds of JPEG, and JPEG-LS."""
_BARE = {0x01, *range(0xD0, 0xD8)}
"""Markers without a length."""
_J2K_START = b"\xff\x4f\xff\x51"
_JP2_SIGNATURE = b"\x00\x00\x00\x0cjP  \r\n\x87\n"
_MAX_SEGMENTS = 1000


@dataclass(frozen=True)
class Codestream:
    """The claims of a compressed image. `marker` tells JPEG's kinds apart (0xC0 baseline); 0: JPEG 2000.

    `signed` is said by JPEG 2000 only.
    """

    rows: int
    columns: int
    precision_bits: int
    channels: int
    marker: int = 0
    signed: bool = False


def read_codestream(data: bytes) -> Codestream:
    """The claims of the image that `data` begins with. Raises ValueError when it begins with none."""
    if data[:2] == bytes((0xFF, _JPEG_START)):
        return _jpeg(data)
    if data[: len(_JP2_SIGNATURE)] == _JP2_SIGNATURE:
        data = data[data.index(_J2K_START) :]
    if data[:4] == _J2K_START:
        return _jpeg_2000(data)
    raise ValueError("neither JPEG nor JPEG 2000")


def _jpeg(data: bytes) -> Codestream:
    at = 2
    for _ in range(_MAX_SEGMENTS):
        while data[at] == 0xFF and data[at + 1] == 0xFF:  # fill bytes
            at += 1
        if data[at] != 0xFF:
            raise ValueError("no marker where one belongs")
        marker = data[at + 1]
        if marker in _BARE:
            at += 2
            continue
        if marker == _SCAN:
            break
        if marker in _FRAMES:
            precision, rows, columns, channels = struct.unpack_from(">BHHB", data, at + 4)
            return Codestream(rows, columns, precision, channels, marker=marker)
        at += 2 + int.from_bytes(data[at + 2 : at + 4])
    raise ValueError("a JPEG stream without a frame")


def _jpeg_2000(data: bytes) -> Codestream:
    """The size of the reference grid less its offset; the first component stands for all."""
    right, bottom, left, top = struct.unpack_from(">IIII", data, 8)
    (channels,) = struct.unpack_from(">H", data, 40)
    depth, across, down = struct.unpack_from(">BBB", data, 42)
    if across != 1 or down != 1:
        raise ValueError("a subsampled component")
    return Codestream(
        rows=bottom - top,
        columns=right - left,
        precision_bits=(depth & 0x7F) + 1,
        channels=channels,
        signed=depth > 0x7F,
    )
