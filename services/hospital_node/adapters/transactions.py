"""The node's database, opened and migrated: one transaction at a time, in a thread."""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from sqlalchemy.engine import Engine
from sqlalchemy.exc import DatabaseError
from sqlalchemy.orm import Session

from libs.core.errors import Unavailable
from libs.runtime.migrations import migrate
from libs.runtime.sql import open_engine, unavailable_when_down

T = TypeVar("T")

MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"


class Transactions:
    """Runs work on the database. All stores of the node share it: what belongs together is one commit."""

    def __init__(self, url: str) -> None:
        """Raises Unavailable when it cannot be opened, FailedPrecondition for another release's tables."""
        self._engine = open_engine(url)
        # Transactions queue up in any case. Here they do so in the order in which they came: SQLite's own
        # waiting is polling, and waiting threads would be missing elsewhere.
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="database")
        try:
            migrate(self._engine, MIGRATIONS)
        except DatabaseError as error:
            raise Unavailable(
                "The node's database cannot be opened. Check the setting database, and that its folder or "
                "server is there and may be written to."
            ) from error

    @property
    def engine(self) -> Engine:
        """For tests that look at what is stored."""
        return self._engine

    def close(self) -> None:
        """Give all connections back, after the last transaction that was begun."""
        self._thread.shutdown(wait=True, cancel_futures=True)
        self._engine.dispose()

    async def run(self, work: Callable[[Session], T]) -> T:
        """The result of `work`, committed; nothing of it is kept when it raises.

        What was begun is finished even if nobody waits for it any more.
        """
        context = contextvars.copy_context()  # who is calling, and what logs say of it
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._thread, lambda: context.run(self.run_blocking, work))

    def run_blocking(self, work: Callable[[Session], T]) -> T:
        """The same, for callers that are in a thread already."""
        with (
            unavailable_when_down("The node's database"),
            Session(self._engine) as session,
            session.begin(),
        ):
            return work(session)
