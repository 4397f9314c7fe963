"""The node's database, opened and migrated: one transaction at a time, in a thread."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
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
        """Give all connections back."""
        self._engine.dispose()

    async def run(self, work: Callable[[Session], T]) -> T:
        """The result of `work`, committed; nothing of it is kept when it raises."""
        return await asyncio.to_thread(self.run_blocking, work)

    def run_blocking(self, work: Callable[[Session], T]) -> T:
        """The same, for callers that are in a thread already."""
        with (
            unavailable_when_down("The node's database"),
            Session(self._engine) as session,
            session.begin(),
        ):
            return work(session)
