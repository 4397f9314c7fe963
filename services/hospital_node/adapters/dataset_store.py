"""Data sets in the node's database. Each method is one transaction, in a thread."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.message import Message
from sqlalchemy import select
from sqlalchemy.orm import Session

from libs.core.clock import Clock
from libs.core.errors import NotFound
from libs.runtime.audit.entry import Event
from libs.runtime.audit.trail import AuditTrail
from services.hospital_node.adapters.answers import once
from services.hospital_node.adapters.dataset_tables import DatasetRow, to_dataset, to_row
from services.hospital_node.adapters.transactions import Transactions
from services.hospital_node.domain import Dataset
from services.hospital_node.ports import Shelf

T = TypeVar("T")
Answer = TypeVar("Answer", bound=Message)


class DatasetStore:
    """Implements `ports.Datasets`."""

    def __init__(self, transactions: Transactions, trail: AuditTrail, clock: Clock) -> None:
        self._transactions, self._trail, self._clock = transactions, trail, clock

    async def dataset(self, name: str) -> Dataset:
        def work(session: Session) -> Dataset:
            found = find_dataset(session, name)
            if found is None:
                raise not_published(name)
            return found

        return await self._transactions.run(work)

    async def datasets(self, *, after: str = "", limit: int | None = None) -> list[Dataset]:
        query = select(DatasetRow).where(DatasetRow.name > after, DatasetRow.withdrawn_at.is_(None))
        query = query.order_by(DatasetRow.name).limit(limit)
        return await self._transactions.run(
            lambda session: [to_dataset(row) for row in session.scalars(query)]
        )

    async def versions(self, name: str) -> list[Dataset]:
        query = select(DatasetRow).where(DatasetRow.name == name).order_by(DatasetRow.version.desc())
        found = await self._transactions.run(
            lambda session: [to_dataset(row) for row in session.scalars(query)]
        )
        if not found:
            raise not_published(name)
        return found

    async def withdrawn_names(self) -> list[str]:
        published = select(DatasetRow.name).where(DatasetRow.withdrawn_at.is_(None))
        query = select(DatasetRow.name).where(DatasetRow.name.not_in(published)).distinct()
        return await self._transactions.run(lambda session: sorted(session.scalars(query)))

    async def run(self, work: Callable[[Shelf], T]) -> T:
        return await self._transactions.run(lambda session: self._shelved(session, work))

    async def answer(
        self, *, actor: str, message: Any, answer_type: type[Answer], work: Callable[[Shelf], Answer]
    ) -> Answer:
        return await once(
            self._transactions,
            caller=actor,
            request=message,
            answer_type=answer_type,
            work=lambda session: self._shelved(session, work),
            now=self._clock.now(),
        )

    async def answered(self, *, actor: str, message: Any, answer_type: type[Answer]) -> Answer | None:
        def not_yet(_session: Session) -> Answer:
            raise _NotAnsweredError

        try:
            return await once(
                self._transactions,
                caller=actor,
                request=message,
                answer_type=answer_type,
                work=not_yet,
                now=self._clock.now(),
            )
        except _NotAnsweredError:
            return None

    def _shelved(self, session: Session, work: Callable[[Shelf], T]) -> T:
        """The result of `work`; what it recorded is entered into the audit trail as the last step."""
        shelf = SqlShelf(session)
        result = work(shelf)
        session.flush()
        for event in shelf.events:
            self._trail.append(session.connection(), event)
        return result


class SqlShelf:
    """Implements `ports.Shelf` in one session."""

    def __init__(self, session: Session) -> None:
        self._session = session
        self.events: list[Event] = []

    def newest(self, name: str) -> Dataset | None:
        query = select(DatasetRow).where(DatasetRow.name == name).order_by(DatasetRow.version.desc()).limit(1)
        row = self._session.scalar(query)
        return None if row is None else to_dataset(row)

    def add(self, dataset: Dataset) -> None:
        self._session.add(to_row(dataset))
        self._session.flush()

    def take_down(self, dataset: Dataset, *, at: datetime) -> None:
        row = self._session.get_one(DatasetRow, (dataset.name, dataset.version))
        row.withdrawn_at = at
        self._session.flush()

    def record(self, event: Event) -> None:
        self.events.append(event)


def find_dataset(session: Session, name: str) -> Dataset | None:
    """The published version of that name, within the caller's transaction."""
    row = session.scalar(select(DatasetRow).where(DatasetRow.name == name, DatasetRow.withdrawn_at.is_(None)))
    return None if row is None else to_dataset(row)


def not_published(name: str) -> NotFound:
    """For a name that means nothing here."""
    return NotFound(f"No data set named {name!r} is published here. See: trefoil dataset list")


class _NotAnsweredError(Exception):
    """Nobody has had an answer to this request yet."""
