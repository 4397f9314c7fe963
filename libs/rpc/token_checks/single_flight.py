"""A burst of calls with one token asks a remote service once."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

T = TypeVar("T")


class SingleFlight(Generic[T]):
    """Calls for a token about which somebody is asking already share that answer, or its error.

    A caller that goes away does not end it for the others. Tokens are known by their SHA-256.
    """

    def __init__(self) -> None:
        self._running: dict[bytes, asyncio.Task[T]] = {}

    async def run(self, token: str, ask: Callable[[], Awaitable[T]]) -> T:
        """What `ask` gives back, or what the one that runs already for this token does."""
        key = hashlib.sha256(token.encode()).digest()
        task = self._running.get(key)
        if task is None:
            task = self._running[key] = asyncio.create_task(_awaited(ask))
            task.add_done_callback(lambda done: self._landed(key, done))
        return await asyncio.shield(task)

    def close(self) -> None:
        """Stop asking; whoever waits is cancelled."""
        for task in self._running.values():
            task.cancel()

    def _landed(self, key: bytes, task: asyncio.Task[T]) -> None:
        del self._running[key]
        if not task.cancelled():
            task.exception()  # seen, also when every caller has gone


async def _awaited(ask: Callable[[], Awaitable[T]]) -> T:
    return await ask()
