"""Databases by URL: SQLite by default, PostgreSQL where there is one."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Literal

from sqlalchemy import Connection, Engine, create_engine, event, exc
from sqlalchemy.engine import make_url

from libs.core.errors import Unavailable

BUSY_TIMEOUT_MS = 10_000
_TURN = 7_463_115
"""PostgreSQL's number of the lock; a database belongs to one service."""
_NO_TURN = "takes_no_turn"


def open_engine(url: str, *, synchronous: Literal["FULL", "NORMAL"] = "FULL") -> Engine:
    """An engine whose transactions may read, decide and write: no other one changes anything in between.

    Transactions queue up, each holding one lock of the whole database from before its first read: SQLite's
    write lock, which its driver would take at the first write only, and an advisory lock of PostgreSQL's
    (DECISIONS.md).
    With "FULL" a commit is on the disk when it returns, with "NORMAL" a power cut may undo the last ones.
    Raises what SQLAlchemy raises for a URL that is none.
    """
    parsed = make_url(url)
    if parsed.get_backend_name() != "sqlite":
        engine = create_engine(parsed, pool_pre_ping=True)
        event.listen(engine, "begin", _take_turn)
        return engine
    engine = create_engine(parsed)

    def connect(connection: Any, _record: Any) -> None:
        connection.isolation_level = None  # the driver must not begin transactions; `_begin` does
        pragmas = (
            "journal_mode=WAL",
            f"synchronous={synchronous}",
            "foreign_keys=ON",
            "recursive_triggers=ON",
        )
        for pragma in (*pragmas, f"busy_timeout={BUSY_TIMEOUT_MS}"):
            connection.execute(f"PRAGMA {pragma}")

    event.listen(engine, "connect", connect)
    event.listen(engine, "begin", _begin)
    return engine


def single_reads(engine: Engine) -> Engine:
    """The same database for reads of one statement each, which take no turn and wait for nobody.

    A statement sees one moment of the database by itself. Two of them may see two, so nothing that is decided
    here, or written afterwards, may rest on them: use a transaction of `engine` for that.
    """
    if engine.dialect.name == "sqlite":  # where the driver never begins a transaction anyway
        return engine.execution_options(**{_NO_TURN: True})
    return engine.execution_options(isolation_level="AUTOCOMMIT", **{_NO_TURN: True})


@contextmanager
def unavailable_when_down(what: str) -> Iterator[None]:
    """Raise `Unavailable` for errors of the database itself, which trying again may cure: it is down,
    restarts, or is locked. Wrong statements and broken constraints pass as they are.
    """
    try:
        yield
    except (exc.OperationalError, exc.InterfaceError, exc.TimeoutError) as error:
        raise Unavailable(f"{what} cannot be reached right now. Try again in a moment.") from error
    except exc.DBAPIError as error:
        if not error.connection_invalidated:
            raise
        raise Unavailable(f"{what} cannot be reached right now. Try again in a moment.") from error


def _take_turn(connection: Connection) -> None:
    if not connection.get_execution_options().get(_NO_TURN):
        connection.exec_driver_sql(f"SELECT pg_advisory_xact_lock({_TURN})")


def _begin(connection: Connection) -> None:
    if not connection.get_execution_options().get(_NO_TURN):
        connection.exec_driver_sql("BEGIN IMMEDIATE")
