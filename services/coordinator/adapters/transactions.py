"""The coordinator's database, opened and migrated: one transaction at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import Engine, Select
from sqlalchemy import Row as SqlRow
from sqlalchemy.exc import DatabaseError, SQLAlchemyError
from sqlalchemy.orm import Session, sessionmaker

from libs.core.errors import InvalidInput, Unavailable
from libs.runtime.audit.entry import Event
from libs.runtime.audit.trail import AuditTrail
from libs.runtime.migrations import migrate
from libs.runtime.sql import open_engine, single_reads, unavailable_when_down
from services.coordinator.ports import Page

MIGRATIONS = Path(__file__).resolve().parents[1] / "migrations"
T = TypeVar("T")
Row = TypeVar("Row")


class Transactions:
    """Opens transactions. All stores share it: what belongs together, its audit entry too, is one commit."""

    def __init__(self, engine: Engine, trail: AuditTrail) -> None:
        self.engine, self._trail = engine, trail
        self._sessions, self._reads = sessionmaker(engine, expire_on_commit=False), single_reads(engine)

    @contextmanager
    def begin(self) -> Iterator[Session]:
        """One transaction. Unavailable when the database is down, restarts, or is locked for long."""
        with unavailable_when_down("The coordinator's database"), self._sessions.begin() as session:
            yield session

    def read(self, statement: Select[*tuple[Any, ...]]) -> Sequence[SqlRow[Any]]:
        """All rows of one statement, which sees one moment of the database and waits for no transaction.

        For what is shown and not decided upon: a change may be under way that it does not see. Unavailable
        as in `begin`.
        """
        with unavailable_when_down("The coordinator's database"), self._reads.connect() as connection:
            return connection.execute(statement).all()

    def enter(self, session: Session, event: Event) -> None:
        """Enter what this transaction does into the audit trail, as its last step."""
        session.flush()
        self._trail.append(session.connection(), event)


def open_transactions(url: str, trail: AuditTrail) -> Transactions:
    """The database at `url`, brought to this release's schema. Changes are entered into `trail`.

    Raises InvalidInput for a URL that names no database, FailedPrecondition for tables of a newer release
    or of something else, Unavailable when it cannot be reached.
    """
    try:
        # A crash of the process loses nothing, one of the machine at most the last moments, and asking the
        # parties again makes up for those.
        engine = open_engine(url, synchronous="NORMAL")
    except (SQLAlchemyError, ImportError) as error:
        raise InvalidInput(
            "The setting database is not a usable URL. Use sqlite:///FILE, or postgresql+psycopg://... "
            "with the extra trefoil[postgresql] installed."
        ) from error
    try:
        migrate(engine, MIGRATIONS)
    except DatabaseError as error:
        raise Unavailable(
            "The coordinator's database cannot be opened. Check that its folder exists and is writable, that "
            "the file is a database, or that the database server runs."
        ) from error
    return Transactions(engine, trail)


def page_of(rows: list[Row], limit: int, convert: Callable[[Row], T], key: Callable[[Row], str]) -> Page[T]:
    """The first `limit` of up to `limit + 1` rows; the one beyond shows that there is another page."""
    shown = rows[:limit]
    return Page(tuple(convert(row) for row in shown), key(shown[-1]) if len(rows) > limit else "")
