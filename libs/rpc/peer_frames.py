"""Messages of a program as frames of the peer stream, and back.

A message is cut into parts of at most 1 MiB, so that a large one neither meets a size limit nor
holds up the small messages of other computations. The first part describes all arrays; the
assembler believes nothing of it: it keeps bytes as they arrive and compares at the end.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.core.errors import Bug
from libs.mpc.program import Message
from libs.rpc._generated.trefoil.party.v1 import party_pb2

PART_BYTES = 1 << 20
MAX_NAME_LENGTH = 256
MAX_ARRAYS = 16
MAX_DIMENSIONS = 8
MAX_ELEMENTS = 1 << 40
"""Of one array if its empty sides had one element: far above any message, far below what numpy refuses."""

LEAST_BYTES = 8
"""What a frame costs of the computation's allowance even if it is empty. Sessions allow 4096 bytes more than
their programs declare, which pays for 585 messages of a single byte each; ResNet-18 sends about a hundred."""

_DTYPES: dict[party_pb2.ArrayHeader.DType.ValueType, np.dtype[Any]] = {
    party_pb2.ArrayHeader.DTYPE_UINT8: np.dtype("u1"),
    party_pb2.ArrayHeader.DTYPE_UINT16: np.dtype("<u2"),
    party_pb2.ArrayHeader.DTYPE_UINT32: np.dtype("<u4"),
    party_pb2.ArrayHeader.DTYPE_UINT64: np.dtype("<u8"),
}
_CODES = {dtype: code for code, dtype in _DTYPES.items()}


class FrameError(Exception):
    """A frame that no honest peer sends. The text is the rule it broke."""


@dataclass(frozen=True)
class Received:
    """One complete message of a peer."""

    label: str
    message: Message


def encode_message(
    computation_id: str, *, sequence: int, label: str, message: Message
) -> Iterator[party_pb2.PeerFrame]:
    """The frames of one message, made one at a time so that a large one is never held twice."""
    arrays = {name: np.ascontiguousarray(array) for name, array in message.items()}
    headers = [
        party_pb2.ArrayHeader(name=name, dtype=_code(array), shape=array.shape)
        for name, array in arrays.items()
    ]
    total = sum(array.nbytes for array in arrays.values())
    parts = max(1, math.ceil(total / PART_BYTES))
    for part, payload in enumerate(_payloads(list(arrays.values()))):
        data = party_pb2.PeerData(
            computation_id=computation_id,
            sequence=sequence,
            label=label,
            arrays=headers if part == 0 else [],
            payload=payload,
            part=part,
            parts=parts,
        )
        yield party_pb2.PeerFrame(data=data)


class Assembler:
    """Puts the parts of one peer's messages together, strictly in order."""

    def __init__(self, *, max_bytes: int) -> None:
        self._left_bytes = max_bytes
        self._sequence = 0
        self._first: party_pb2.PeerData | None = None
        self._payload = bytearray()

    def feed(self, data: party_pb2.PeerData) -> Received | None:
        """The message that this part completes, if it does. Raises `FrameError`."""
        if data.sequence != self._sequence:
            raise FrameError(f"message {data.sequence} instead of {self._sequence}")
        if self._first is None:
            _check_first(data)
            self._first = data
        expected_part = len(self._payload) // PART_BYTES
        if (data.part, data.parts, data.label) != (expected_part, self._first.parts, self._first.label):
            raise FrameError(f"{self._first.label}: part {data.part} out of order")
        self._left_bytes -= max(len(data.payload), LEAST_BYTES)
        if self._left_bytes < 0:
            raise FrameError(f"{data.label}: more bytes than the computation allows")
        self._payload += data.payload
        last = data.part == data.parts - 1
        if not last and len(data.payload) != PART_BYTES:
            raise FrameError(f"{data.label}: part {data.part} has {len(data.payload)} bytes")
        if not last:
            return None
        received = Received(data.label, _arrays(self._first.arrays, self._payload, label=data.label))
        self._first, self._payload, self._sequence = None, bytearray(), self._sequence + 1
        return received


def _code(array: npt.NDArray[Any]) -> party_pb2.ArrayHeader.DType.ValueType:
    try:
        return _CODES[array.dtype]
    except KeyError:
        raise Bug(f"Arrays of {array.dtype} are not part of the peer protocol.") from None


def _payloads(arrays: list[npt.NDArray[Any]]) -> Iterator[bytes]:
    """The arrays' bytes, one after the other, in pieces of PART_BYTES; one empty piece for nothing."""
    pending: list[memoryview] = []
    room = PART_BYTES
    yielded = False
    for array in arrays:
        if not array.size:
            continue
        view = array.reshape(-1).view(np.uint8).data
        while view:
            piece, view = view[:room], view[room:]
            pending.append(piece)
            room -= len(piece)
            if room == 0:
                yield b"".join(pending)
                pending, room, yielded = [], PART_BYTES, True
    if pending or not yielded:
        yield b"".join(pending)


def _check_first(data: party_pb2.PeerData) -> None:
    if not data.label or len(data.label) > MAX_NAME_LENGTH:
        raise FrameError("a message without a proper label")
    if len(data.arrays) > MAX_ARRAYS:
        raise FrameError(f"{data.label}: {len(data.arrays)} arrays in one message")
    names = [header.name for header in data.arrays]
    if len(set(names)) != len(names) or any(len(name) > MAX_NAME_LENGTH for name in names):
        raise FrameError(f"{data.label}: arrays without proper names")
    for header in data.arrays:
        if header.dtype not in _DTYPES or len(header.shape) > MAX_DIMENSIONS:
            raise FrameError(f"{data.label}/{header.name}: unknown type or too many dimensions")
        if math.prod(max(1, side) for side in header.shape) > MAX_ELEMENTS:
            raise FrameError(f"{data.label}/{header.name}: impossible shape")


def _arrays(headers: Any, payload: bytearray, *, label: str) -> dict[str, npt.NDArray[Any]]:
    """Aligned, writable arrays: views of the payload, and a copy of one that starts at an odd byte of it."""
    declared = sum(math.prod(header.shape) * _DTYPES[header.dtype].itemsize for header in headers)
    if declared != len(payload):
        raise FrameError(f"{label}: {len(payload)} bytes instead of the declared {declared}")
    arrays = {}
    offset = 0
    for header in headers:
        dtype, count = _DTYPES[header.dtype], math.prod(header.shape)
        array = np.frombuffer(payload, dtype=dtype, count=count, offset=offset)
        arrays[header.name] = (array if array.flags.aligned else array.copy()).reshape(tuple(header.shape))
        offset += array.nbytes
    return arrays
