"""Lets a few in at a time, a bounded number wait, and tells the rest to come back."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from libs.core.errors import Unavailable

AT_ONCE = 2
"""One may compute a hash while another is at the database."""
WAITING = 64
OF_ONE_CLIENT = 32

TOO_BUSY = "Too many people log in right now. Try again in a few seconds."


class Turnstile:
    """First come, first served; no client takes more than half of the places."""

    def __init__(
        self, *, at_once: int = AT_ONCE, waiting: int = WAITING, of_one_client: int = OF_ONE_CLIENT
    ) -> None:
        self._inside = asyncio.Semaphore(at_once)
        self._places, self._of_one_client = at_once + waiting, of_one_client
        self._here: Counter[str] = Counter()

    @asynccontextmanager
    async def passed(self, client: str) -> AsyncIterator[None]:
        """Within it, one is inside. Unavailable at once if nobody else may wait."""
        if self._here.total() >= self._places or self._here[client] >= self._of_one_client:
            raise Unavailable(TOO_BUSY)
        self._here[client] += 1
        try:
            async with self._inside:
                yield
        finally:
            self._here[client] -= 1
            if not self._here[client]:
                del self._here[client]
