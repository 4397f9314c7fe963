"""Every message a process receives, as the raw bytes from the wire: the evidence of the privacy tests.

A recording holds shares, so it is for tests on made-up data only: a Recorder refuses to exist unless the
process was started with TREFOIL_TESTING=1.
"""

from __future__ import annotations

import os
import struct
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from libs.core.errors import FailedPrecondition, InvalidInput

TESTING = "TREFOIL_TESTING"
REQUEST, RESPONSE = "request", "response"
UNARY, STREAM = "unary", "stream"

# direction, method and kind as length-prefixed UTF-8, then the message; all lengths are little-endian uint32
_LENGTH = struct.Struct("<I")


@dataclass(frozen=True)
class Record:
    """One received message: a server's request or a client's response."""

    direction: str
    method: str
    kind: str
    data: bytes


class Recorder:
    """Appends received messages to one file per process in `folder`, `received-<pid>.bin`."""

    def __init__(self, folder: Path) -> None:
        if os.environ.get(TESTING) != "1":
            raise FailedPrecondition(
                "record_received_to writes every received share to disk and is for tests only. "
                f"Remove it from the settings, or set {TESTING}=1 if all data here is made up."
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.path = folder / f"received-{os.getpid()}.bin"
        self._file = self.path.open("ab", buffering=0)
        self._lock = threading.Lock()

    def record(self, *, direction: str, method: str, kind: str, data: bytes) -> None:
        """Append one message; it is in the file even if the process is killed right after."""
        parts = (direction.encode(), method.encode(), kind.encode(), data)
        packed = b"".join(_LENGTH.pack(len(part)) + part for part in parts)
        with self._lock:
            self._file.write(packed)

    def close(self) -> None:
        """Close the file."""
        self._file.close()


def read_records(path: Path) -> Iterator[Record]:
    """The messages in one file, in the order they came. InvalidInput if it was cut off."""
    with path.open("rb") as file:
        while True:
            direction = _read_part(file, first=True)
            if direction is None:
                return
            method, kind, data = (_read_part(file, first=False) or b"" for _ in range(3))
            yield Record(direction.decode(), method.decode(), kind.decode(), data)


def _read_part(file: BinaryIO, *, first: bool) -> bytes | None:
    """The next length-prefixed part; None at a clean end of the file, which only a `first` part may meet."""
    prefix = file.read(_LENGTH.size)
    if first and not prefix:
        return None
    length = _LENGTH.unpack(prefix)[0] if len(prefix) == _LENGTH.size else -1
    part = file.read(max(length, 0))
    if len(part) != length:
        raise InvalidInput(f"The recording {file.name} ends in the middle of a message.")
    return part
