"""How a service's process asks the system for memory."""

from __future__ import annotations

import ctypes

_M_ARENA_MAX = -8
ARENAS = 2


def share_arenas() -> None:
    """Let all threads of this process share two of glibc's arenas. Call it before any thread is started.

    By default each thread gets an arena of its own and keeps what it freed: with arrays of many megabytes
    that pass from thread to thread, a tenth of the process's memory. Without glibc nothing happens.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)
    if mallopt is not None:
        mallopt(_M_ARENA_MAX, ARENAS)
