"""The node's memory in a relational database: SQLite by default, PostgreSQL by URL."""

from __future__ import annotations

import json
from collections.abc import Mapping

from sqlalchemy import String, select
from sqlalchemy.orm import Mapped, Session, mapped_column

from libs.core.errors import FailedPrecondition
from libs.runtime.audit.entry import Event
from libs.runtime.audit.trail import AuditTrail
from services.hospital_node import trail_events
from services.hospital_node.adapters.tables import Base
from services.hospital_node.adapters.transactions import Transactions
from services.hospital_node.domain import (
    Order,
    Task,
    TaskEvent,
    TaskKey,
    TaskKind,
    TaskState,
    admit,
)


class _TaskRow(Base):
    __tablename__ = "tasks"
    study_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    kind: Mapped[str] = mapped_column(String(20), primary_key=True)
    round: Mapped[int] = mapped_column(primary_key=True)
    attempt: Mapped[int] = mapped_column(primary_key=True)
    state: Mapped[str]
    base_model_id: Mapped[str]
    upload_id: Mapped[str] = mapped_column(default="")
    bound_bits: Mapped[str] = mapped_column(default="{}")
    failure_code: Mapped[str] = mapped_column(default="")
    failure: Mapped[str] = mapped_column(default="")


class Database:
    """Implements `ports.Store`. Each method is one transaction, in a thread, so the event loop goes on."""

    def __init__(self, transactions: Transactions, trail: AuditTrail) -> None:
        self._transact, self._trail = transactions.run, trail

    def _enter(self, session: Session, event: Event) -> None:
        """Enter what this transaction does into the audit trail, as its last step."""
        session.flush()
        self._trail.append(session.connection(), event)

    async def done_before(self, order: Order) -> Task | None:
        def work(session: Session) -> Task | None:
            row = _admitted(session, order)
            return _to_task(row) if row is not None and row.state == TaskState.DONE.value else None

        return await self._transact(work)

    async def start_task(self, order: Order) -> Task:
        key = order.key

        def work(session: Session) -> Task:
            row = _admitted(session, order)
            if row is not None and row.state == TaskState.DONE.value:
                return _to_task(row)
            if row is None:
                row = _TaskRow(
                    study_id=key.study_id, kind=key.kind.value, round=key.round, attempt=key.attempt
                )
                row.state = TaskState.RUNNING.value
                session.add(row)
            else:
                row.state = _to_task(row).next_state(TaskEvent.START).value
            row.base_model_id, row.upload_id, row.bound_bits = order.base_model_id, "", "{}"
            row.failure_code, row.failure = "", ""
            self._enter(session, trail_events.task_started(order))
            return _to_task(row)

        return await self._transact(work)

    async def mark_sending(self, key: TaskKey, *, upload_id: str) -> Task:
        return await self._move_task(key, TaskEvent.SEND, upload_id=upload_id)

    async def finish_task(self, key: TaskKey, *, bound_bits: Mapping[str, int] | None = None) -> Task:
        return await self._move_task(key, TaskEvent.FINISH, bound_bits=json.dumps(dict(bound_bits or {})))

    async def fail_task(self, key: TaskKey, *, code: str, message: str) -> Task:
        return await self._move_task(key, TaskEvent.FAIL, failure_code=code, failure=message)

    async def refuse_task(self, key: TaskKey) -> bool:
        def known(session: Session) -> bool:
            row = _task_row(session, key)
            return row is not None and row.state == TaskState.REFUSED.value

        if await self._transact(known):
            return False
        await self._move_task(key, TaskEvent.REFUSE)
        return True

    async def fail_interrupted_tasks(self) -> int:
        def work(session: Session) -> int:
            unfinished = (TaskState.RUNNING.value, TaskState.SENDING.value)
            rows = session.scalars(select(_TaskRow).where(_TaskRow.state.in_(unfinished))).all()
            for row in rows:
                row.state = _to_task(row).next_state(TaskEvent.RESTART_NODE).value
                row.failure_code, row.failure = (
                    "unavailable",
                    "The hospital's node was restarted during this task.",
                )
                self._enter(session, trail_events.task_interrupted(_to_task(row).key))
            return len(rows)

        return await self._transact(work)

    async def _move_task(self, key: TaskKey, event: TaskEvent, **columns: str) -> Task:
        def work(session: Session) -> Task:
            row = _task_row(session, key)
            if row is None:
                raise FailedPrecondition(f"Round {key.round} of study {key.study_id} was never started here.")
            row.state = _to_task(row).next_state(event).value
            for name, value in columns.items():
                setattr(row, name, value)
            moved = trail_events.task_moved(
                key, event, upload_id=row.upload_id, failure_code=row.failure_code
            )
            self._enter(session, moved)
            return _to_task(row)

        return await self._transact(work)


def training_attempts(session: Session, study_id: str, *, number: int) -> list[Task]:
    """All tasks that train that round, within the caller's transaction."""
    query = select(_TaskRow).where(
        _TaskRow.study_id == study_id, _TaskRow.kind == TaskKind.TRAIN.value, _TaskRow.round == number
    )
    return [_to_task(row) for row in session.scalars(query)]


def _admitted(session: Session, order: Order) -> _TaskRow | None:
    """The order's task if there is one. FailedPrecondition unless it is done, or may be begun."""
    row = _task_row(session, order.key)
    if row is None or row.state != TaskState.DONE.value:
        others = session.scalars(select(_TaskRow).where(_TaskRow.study_id == order.key.study_id))
        admit(order, [_to_task(other) for other in others])
    return row


def _task_row(session: Session, key: TaskKey) -> _TaskRow | None:
    identity = (key.study_id, key.kind.value, key.round, key.attempt)
    return session.get(_TaskRow, identity, with_for_update=True)


def _to_task(row: _TaskRow) -> Task:
    return Task(
        key=TaskKey(study_id=row.study_id, kind=TaskKind(row.kind), round=row.round, attempt=row.attempt),
        state=TaskState(row.state),
        base_model_id=row.base_model_id,
        upload_id=row.upload_id,
        bound_bits=json.loads(row.bound_bits),
        failure_code=row.failure_code,
        failure=row.failure,
    )
