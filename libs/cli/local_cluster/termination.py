"""SIGTERM as an exception, so that whoever is asked to stop also cleans up."""

from __future__ import annotations

import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType


@contextmanager
def sigterm_as_exit() -> Iterator[None]:
    """Inside, SIGTERM raises SystemExit(143), as Ctrl-C raises KeyboardInterrupt.

    Python takes signals in the main thread only; in any other this changes nothing.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous = signal.signal(signal.SIGTERM, _raise_system_exit)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)


def _raise_system_exit(number: int, frame: FrameType | None) -> None:
    raise SystemExit(128 + number)
