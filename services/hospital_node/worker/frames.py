"""The line between the node and its worker: one JSON line, then the raw bytes of the arrays it lists.

JSON and numbers cannot carry code, so neither side can be made to run any by the other.
"""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, BinaryIO

import numpy as np

from libs.mpc.ring import Ring, RingArray

MAX_HEADER_BYTES = 2**20
MAX_ARRAY_BYTES = 2**32

_DTYPES = {ring.dtype.name: ring.dtype for ring in Ring}


class BrokenFrameError(Exception):
    """What came over the pipe is not a frame: the other side is broken and has to be restarted."""


@dataclass(frozen=True)
class Frame:
    """One message: what it is, named values, named ring arrays. `repr` shows no array."""

    kind: str
    fields: Mapping[str, Any] = field(default_factory=dict)
    arrays: Mapping[str, RingArray] = field(default_factory=dict, repr=False)


@dataclass(frozen=True)
class _Header:
    kind: str
    fields: Mapping[str, Any]
    arrays: tuple[tuple[str, np.dtype[Any], tuple[int, ...]], ...]

    @property
    def payload_bytes(self) -> int:
        return sum(dtype.itemsize * math.prod(shape) for _, dtype, shape in self.arrays)


def encode(frame: Frame) -> bytes:
    """The frame's bytes."""
    arrays = {name: np.ascontiguousarray(array) for name, array in frame.arrays.items()}
    listed = [[name, array.dtype.name, list(array.shape)] for name, array in arrays.items()]
    header = {"kind": frame.kind, "fields": dict(frame.fields), "arrays": listed}
    line = json.dumps(header, allow_nan=False).encode() + b"\n"
    _parse_header(line)  # what could not be read is not sent
    return b"".join([line, *(array.tobytes() for array in arrays.values())])


def read(stream: BinaryIO) -> Frame | None:
    """The next frame, or None at the end of the stream. Raises BrokenFrameError."""
    line = stream.readline(MAX_HEADER_BYTES + 1)
    if not line:
        return None
    header = _parse_header(line)
    payload = stream.read(header.payload_bytes)
    if len(payload) != header.payload_bytes:
        raise BrokenFrameError("the stream ended within a frame")
    return _assemble(header, payload)


async def read_async(stream: asyncio.StreamReader) -> Frame | None:
    """The next frame, or None at the end of the stream. Its limit must be MAX_HEADER_BYTES."""
    try:
        line = await stream.readline()
        if not line:
            return None
        header = _parse_header(line)
        payload = await stream.readexactly(header.payload_bytes)
    except (asyncio.IncompleteReadError, ValueError) as error:
        raise BrokenFrameError("the stream ended within a frame") from error
    return _assemble(header, payload)


def _parse_header(line: bytes) -> _Header:
    if len(line) > MAX_HEADER_BYTES or not line.endswith(b"\n"):
        raise BrokenFrameError("the header is too long or cut off")
    try:
        raw = json.loads(line)
        listed = [(str(name), _DTYPES[dtype], tuple(map(int, shape))) for name, dtype, shape in raw["arrays"]]
        header = _Header(kind=str(raw["kind"]), fields=dict(raw["fields"]), arrays=tuple(listed))
    except (ValueError, KeyError, TypeError) as error:
        raise BrokenFrameError("the header is not what was agreed") from error
    if any(size < 0 for _, _, shape in header.arrays for size in shape):
        raise BrokenFrameError("an array has a negative size")
    if header.payload_bytes > MAX_ARRAY_BYTES:
        raise BrokenFrameError("the arrays are too large")
    return header


def _assemble(header: _Header, payload: bytes) -> Frame:
    arrays, start = {}, 0
    for name, dtype, shape in header.arrays:
        count = math.prod(shape)
        arrays[name] = np.frombuffer(payload, dtype=dtype, count=count, offset=start).reshape(shape)
        start += count * dtype.itemsize
    return Frame(kind=header.kind, fields=header.fields, arrays=arrays)
