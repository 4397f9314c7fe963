"""A trail together with its database: for what happens outside of any other transaction."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa

from libs.runtime.audit.checkpoint import Checkpoint
from libs.runtime.audit.entry import Event
from libs.runtime.audit.trail import AuditTrail
from libs.runtime.sql import unavailable_when_down


class AuditLog:
    """Every method is one transaction and blocks on the disk. Unavailable when the database is down."""

    def __init__(self, engine: sa.Engine, trail: AuditTrail) -> None:
        self._engine, self.trail = engine, trail

    def record(self, events: Sequence[Event]) -> None:
        """Append all of the events (at least one), or none."""
        with self._transaction() as connection:
            self.trail.append_all(connection, events)

    def checkpoint(self) -> Checkpoint | None:
        """Sign the end of the chain, if anything is new since the last signature."""
        with self._transaction() as connection:
            return self.trail.checkpoint(connection)

    def end(self) -> int:
        """The sequence number of the last entry; 0 without any."""
        with self._transaction() as connection:
            return self.trail.end(connection)

    def page(self, *, after: int, limit: int) -> list[dict[str, Any]]:
        """Up to `limit` entries after that sequence number, with their checkpoints, as JSON-line dicts."""
        with self._transaction() as connection:
            return self.trail.export(connection, after=after, limit=limit)

    @contextmanager
    def _transaction(self) -> Iterator[sa.Connection]:
        with unavailable_when_down("The audit trail"), self._engine.begin() as connection:
            yield connection
