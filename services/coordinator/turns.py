"""One event in each round of the event loop, however many hospitals speak at once."""

from __future__ import annotations

import asyncio


class Turns:
    """Hands out turns, one in a round of the event loop, in the order of asking."""

    def __init__(self) -> None:
        self._one_at_a_time = asyncio.Lock()

    async def take(self) -> None:
        """Wait for a turn. What the caller does from here to its next await is its turn."""
        async with self._one_at_a_time:
            await asyncio.sleep(0)
