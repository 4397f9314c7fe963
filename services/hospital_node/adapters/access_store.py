"""Requests, approvals, studies, rules and the ledger in the node's database: implements `access/ports.py`.

Transactions of this database queue up (`libs/runtime/sql.py`): what a unit has read is still so when it is
kept, so of a hundred that race for the last use exactly one finds it.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from typing import Any, TypeVar

from google.protobuf.message import Message
from sqlalchemy import Select, func, select
from sqlalchemy.orm import Session

from libs.core.clock import Clock
from libs.core.errors import InvalidInput
from libs.dp.budget import Spend
from libs.runtime.audit.entry import Event
from libs.runtime.audit.trail import AuditTrail
from services.hospital_node.access.domain import (
    AccessRequest,
    Approval,
    LedgerEntry,
    LedgerKind,
    NewEntry,
    RequestState,
    Rule,
    Study,
)
from services.hospital_node.access.ports import Unit
from services.hospital_node.adapters.access_tables import (
    ApprovalRow,
    LedgerRow,
    ModelUseRow,
    RequestRow,
    RuleRow,
    StudyRow,
    entry_row,
    to_columns,
    to_entry,
    to_value,
)
from services.hospital_node.adapters.answers import answered_once
from services.hospital_node.adapters.database import training_attempts
from services.hospital_node.adapters.dataset_store import find_dataset
from services.hospital_node.adapters.transactions import Transactions
from services.hospital_node.domain import Dataset, TaskState

T = TypeVar("T")
Answer = TypeVar("Answer", bound=Message)

_MAY_HAVE_LEFT = (TaskState.SENDING, TaskState.DONE, TaskState.LOST)


class SqlAccess:
    """Implements `ports.AccessStore`."""

    def __init__(self, transactions: Transactions, *, trail: AuditTrail, clock: Clock) -> None:
        self._transactions, self._trail, self._clock = transactions, trail, clock

    async def run(self, work: Callable[[Unit], T]) -> T:
        return await self._transactions.run(lambda session: self._work(session, work, call_id=""))

    async def answer(
        self, *, actor: str, message: Any, answer_type: type[Answer], work: Callable[[Unit], Answer]
    ) -> Answer:
        has_own_id = "call_id" in message.DESCRIPTOR.fields_by_name
        call_id = message.call_id if has_own_id else message.request_id
        if not call_id:
            raise InvalidInput("Give this call an id, so that sending it again does nothing twice.")

        def once(session: Session) -> Answer:
            return answered_once(
                session,
                caller=actor,
                request=message,
                answer_type=answer_type,
                work=lambda inner: self._work(inner, work, call_id=call_id),
                now=self._clock.now(),
            )

        return await self._transactions.run(once)

    def _work(self, session: Session, work: Callable[[Unit], T], *, call_id: str) -> T:
        unit = SqlUnit(session, now=self._clock.now())
        result = work(unit)
        session.flush()
        for event in unit.events:  # last: the end of the chain is locked as briefly as can be
            self._trail.append(session.connection(), replace(event, request_id=event.request_id or call_id))
        return result


class SqlUnit:
    """Implements `ports.Unit` on one session."""

    def __init__(self, session: Session, *, now: datetime) -> None:
        self._session, self._now = session, now
        self.events: list[Event] = []

    @property
    def now(self) -> datetime:
        return self._now

    def dataset(self, name: str) -> Dataset | None:
        return find_dataset(self._session, name)

    # ------------------------------------------------------------ requests and approvals

    def request(self, request_id: str) -> AccessRequest | None:
        return self._one(AccessRequest, select(RequestRow).where(RequestRow.request_id == request_id))

    def requests(self, *, pending_only: bool, after: str, limit: int | None) -> list[AccessRequest]:
        query = select(RequestRow).order_by(RequestRow.number).limit(limit)
        if pending_only:
            query = query.where(RequestRow.state == RequestState.PENDING.value)
        if after:
            last = self._session.scalar(select(RequestRow.number).where(RequestRow.request_id == after))
            query = query.where(RequestRow.number > (last or 0))
        return self._all(AccessRequest, query)

    def waiting_requests(self, requester: str) -> int:
        query = select(func.count()).where(
            RequestRow.requester == requester, RequestRow.state == RequestState.PENDING.value
        )
        return self._session.scalar(query) or 0

    def put_request(self, request: AccessRequest) -> None:
        self._put(select(RequestRow).where(RequestRow.request_id == request.request_id), RequestRow, request)

    def approval(self, approval_id: str) -> Approval | None:
        return self._one(Approval, select(ApprovalRow).where(ApprovalRow.approval_id == approval_id))

    def approval_of(self, request_id: str) -> Approval | None:
        return self._one(Approval, select(ApprovalRow).where(ApprovalRow.request_id == request_id))

    def approvals_by(self, *, rule_id: str) -> list[Approval]:
        query = select(ApprovalRow).where(ApprovalRow.rule_id == rule_id)
        return self._all(Approval, query.order_by(ApprovalRow.number))

    def approvals_for(self, *, requester: str, dataset_name: str) -> list[Approval]:
        query = select(ApprovalRow).where(
            ApprovalRow.requester == requester, ApprovalRow.dataset_name == dataset_name
        )
        return self._all(Approval, query.order_by(ApprovalRow.number))

    def approvals_of_model(self, model_id: str) -> list[Approval]:
        query = select(ApprovalRow).join(RequestRow, RequestRow.request_id == ApprovalRow.request_id)
        return self._all(Approval, query.where(RequestRow.model_id == model_id).order_by(ApprovalRow.number))

    def put_approval(self, approval: Approval) -> None:
        query = select(ApprovalRow).where(ApprovalRow.approval_id == approval.approval_id)
        self._put(query, ApprovalRow, approval)

    # ------------------------------------------------------------ studies and rules

    def study(self, study_id: str) -> Study | None:
        return self._one(Study, select(StudyRow).where(StudyRow.study_id == study_id))

    def studies(self) -> list[Study]:
        return self._all(Study, select(StudyRow).order_by(StudyRow.received_at, StudyRow.study_id))

    def studies_under(self, approval_id: str) -> list[Study]:
        query = select(StudyRow).where(StudyRow.approval_id == approval_id)
        return self._all(Study, query.order_by(StudyRow.received_at, StudyRow.study_id))

    def study_stated(self, statement_id: str) -> Study | None:
        return self._one(Study, select(StudyRow).where(StudyRow.statement_id == statement_id))

    def put_study(self, study: Study) -> None:
        self._put(select(StudyRow).where(StudyRow.study_id == study.study_id), StudyRow, study)

    def rule(self, rule_id: str) -> Rule | None:
        return self._one(Rule, select(RuleRow).where(RuleRow.rule_id == rule_id))

    def rules(self) -> list[Rule]:
        return self._all(Rule, select(RuleRow).order_by(RuleRow.created_at, RuleRow.rule_id))

    def put_rule(self, rule: Rule) -> None:
        self._put(select(RuleRow).where(RuleRow.rule_id == rule.rule_id), RuleRow, rule)

    # ------------------------------------------------------------ the ledger

    def entries(
        self, *, dataset_name: str = "", consumer: str = "", after: int = 0, limit: int | None = None
    ) -> list[LedgerEntry]:
        query = select(LedgerRow).where(LedgerRow.sequence > after).order_by(LedgerRow.sequence).limit(limit)
        if dataset_name:
            query = query.where(LedgerRow.dataset_name == dataset_name)
        if consumer:
            query = query.where(LedgerRow.consumer == consumer)
        return [to_entry(row) for row in self._session.scalars(query)]

    def ledger_datasets(self) -> set[str]:
        return set(self._session.scalars(select(LedgerRow.dataset_name).distinct()))

    def spends(self, *, dataset_name: str = "", approval_id: str = "") -> list[Spend]:
        query = select(LedgerRow).where(LedgerRow.kind != LedgerKind.BUDGET_SET.value)
        if dataset_name:
            query = query.where(LedgerRow.dataset_name == dataset_name)
        if approval_id:
            query = query.where(LedgerRow.approval_id == approval_id)
        return [to_entry(row).line.cost for row in self._session.scalars(query)]

    def budget(self, dataset_name: str) -> Spend | None:
        query = select(LedgerRow).where(
            LedgerRow.dataset_name == dataset_name, LedgerRow.kind == LedgerKind.BUDGET_SET.value
        )
        row = self._session.scalar(query.order_by(LedgerRow.sequence.desc()).limit(1))
        return None if row is None else to_entry(row).line.cost

    def enter(self, line: NewEntry) -> LedgerEntry:
        last = self._session.scalar(select(func.max(LedgerRow.sequence))) or 0
        row = entry_row(last + 1, self._now, line)
        self._session.add(row)
        self._session.flush()
        return LedgerEntry(row.sequence, self._now, line)

    def attempts_sent(self, study_id: str, *, number: int, besides: int) -> bool:
        tasks = training_attempts(self._session, study_id, number=number)
        return any(task.key.attempt != besides and task.state in _MAY_HAVE_LEFT for task in tasks)

    def attempt_entered(self, study_id: str, *, number: int, attempt: int) -> bool:
        query = select(LedgerRow.sequence).where(
            LedgerRow.kind == LedgerKind.ATTEMPT.value,
            LedgerRow.study_id == study_id,
            LedgerRow.round == number,
            LedgerRow.attempt == attempt,
        )
        return self._session.scalar(query) is not None

    # ------------------------------------------------------------ what follows from a change

    def record(self, event: Event) -> None:
        self.events.append(event)

    def model_use_changed(self, model_id: str) -> None:
        row = self._session.get(ModelUseRow, model_id)
        if row is None:
            self._session.add(ModelUseRow(model_id=model_id, revision=1, told="[]"))
        else:
            row.revision, row.told = row.revision + 1, "[]"
        self._session.flush()

    def model_use_told(self, model_id: str, *, revision: int, party: int) -> None:
        row = self._session.get(ModelUseRow, model_id)
        if row is not None and row.revision == revision:
            row.told = json.dumps(sorted({*json.loads(row.told), party}))

    def model_use_ahead(self, model_id: str, revision: int) -> None:
        row = self._session.get(ModelUseRow, model_id)
        if row is not None and row.revision <= revision:
            row.revision, row.told = revision + 1, "[]"

    def model_uses_untold(self) -> list[tuple[str, int, frozenset[int]]]:
        rows = self._session.scalars(select(ModelUseRow).order_by(ModelUseRow.model_id))
        known = [(row.model_id, row.revision, frozenset(json.loads(row.told))) for row in rows]
        return [(model_id, revision, told) for model_id, revision, told in known if len(told) < 3]

    # ------------------------------------------------------------ rows

    def _one(self, kind: type[T], query: Select[Any]) -> T | None:
        row = self._session.scalar(query)
        return None if row is None else to_value(kind, row)

    def _all(self, kind: type[T], query: Select[Any]) -> list[T]:
        return [to_value(kind, row) for row in self._session.scalars(query)]

    def _put(self, query: Select[Any], kind: type[Any], value: Any) -> None:
        row = self._session.scalar(query)
        if row is None:
            self._session.add(kind(**to_columns(value)))
        else:
            for name, column in to_columns(value).items():
                setattr(row, name, column)
        self._session.flush()
