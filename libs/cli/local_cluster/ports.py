"""Free ports for several clusters on one machine."""

from __future__ import annotations

import fcntl
import os
import random
import socket
import tempfile
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from libs.core.errors import Unavailable

# Below Linux's range for outgoing connections (32768 and up), so that no connection of a neighbour can sit
# on a port while the service that owns it restarts.
_FIRST, _LAST = 20_000, 32_000
_ATTEMPTS = 2_000


def is_free(port: int) -> bool:
    """Whether something could listen on 127.0.0.1:port now."""
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True


class PortReservation:
    """Ports that no other reservation on this machine gives out while this one is open.

    A port counts as free when binding it works; between that check and the service's own bind, and while a
    service restarts, a lock on a file named after the port keeps other clusters away from it. The kernel
    drops the lock with the process, however it ends. Programs that do not know the locks can still take a
    port: the cluster notices and starts again with others.
    """

    def __init__(self, folder: Path | None = None) -> None:
        self._folder = folder or Path(tempfile.gettempdir()) / f"trefoil-ports-{os.getuid()}"
        self._locks: dict[int, IO[bytes]] = {}

    def take(self) -> int:
        """One more port. Raises `Unavailable` when none is to be had."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        for _ in range(_ATTEMPTS):
            port = random.randint(_FIRST, _LAST)  # noqa: S311 - any free one will do
            lock = self._try_lock(port)
            if lock is None:
                continue
            if is_free(port):
                self._locks[port] = lock
                return port
            lock.close()
        raise Unavailable(f"No free port between {_FIRST} and {_LAST}. Stop other clusters and try again.")

    def _try_lock(self, port: int) -> IO[bytes] | None:
        if port in self._locks:
            return None
        lock = (self._folder / f"{port}.lock").open("ab")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            lock.close()
            return None
        return lock

    def release(self) -> None:
        """Give every port back. The lock files stay: removing one could pull it from under a neighbour."""
        for lock in self._locks.values():
            lock.close()
        self._locks.clear()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.release()
