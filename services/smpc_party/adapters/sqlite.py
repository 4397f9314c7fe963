"""An SQLite database whose commits are on the disk, and whose transactions decide on what they read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import sqlalchemy as sa


def open_sqlite(file: Path) -> sa.Engine:
    """An engine for `file`; writers queue up for up to 10 s instead of failing."""
    engine = sa.create_engine(f"sqlite:///{file}")
    sa.event.listen(engine, "connect", _durable)
    sa.event.listen(engine, "begin", _begin)
    return engine


def _durable(connection: Any, _record: Any) -> None:
    connection.isolation_level = None  # the driver must not begin transactions; `_begin` does
    for pragma in ("journal_mode=WAL", "synchronous=FULL", "busy_timeout=10000"):
        connection.execute(f"PRAGMA {pragma}")


def _begin(connection: sa.Connection) -> None:
    """Take the write lock before the first read, so that no decision rests on what another one changes."""
    connection.exec_driver_sql("BEGIN IMMEDIATE")
