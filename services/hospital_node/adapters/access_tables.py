"""The tables of access, and their rows as the domain's values. Costs are decimal text, lists JSON."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields
from datetime import datetime
from typing import Any, TypeVar

from sqlalchemy import BigInteger, DateTime, LargeBinary, String
from sqlalchemy.orm import Mapped, mapped_column

from libs.dp.budget import Spend
from libs.runtime.sql_append_only import append_only
from services.hospital_node.access.costs import decimal_text, epsilon_text, parse_cost
from services.hospital_node.access.domain import (
    AccessRequest,
    Approval,
    LedgerEntry,
    LedgerKind,
    NewEntry,
    Origin,
    Purpose,
    RequestState,
    Rule,
    Study,
    StudyState,
)
from services.hospital_node.adapters.tables import Base, utc

Value = TypeVar("Value")


class RequestRow(Base):
    """An `AccessRequest`; `number` is the order in which they came."""

    __tablename__ = "access_requests"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    request_id: Mapped[str] = mapped_column(String(200), unique=True)
    origin: Mapped[str] = mapped_column(String(20))
    purpose: Mapped[str] = mapped_column(String(20))
    dataset_name: Mapped[str] = mapped_column(String(200))
    content_hash: Mapped[str]
    dataset_version: Mapped[int]
    requester: Mapped[str]
    requested_by: Mapped[str]
    reason: Mapped[str]
    asked: Mapped[str]
    uses_asked: Mapped[int]
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    plan_hash: Mapped[str] = mapped_column(String(64))
    training_plan: Mapped[bytes] = mapped_column(LargeBinary)
    model_id: Mapped[str] = mapped_column(String(200))
    planned: Mapped[str | None]
    statement_hash: Mapped[str] = mapped_column(String(64))
    study_id: Mapped[str] = mapped_column(String(200))
    title: Mapped[str]
    hospitals: Mapped[str]
    readers: Mapped[str]
    state: Mapped[str] = mapped_column(String(20))
    decision_reason: Mapped[str]
    decided_by: Mapped[str]
    decided_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class ApprovalRow(Base):
    """An `Approval`; `number` is the order in which they were given."""

    __tablename__ = "approvals"
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=True)
    approval_id: Mapped[str] = mapped_column(String(64), unique=True)
    request_id: Mapped[str] = mapped_column(String(200), unique=True)
    purpose: Mapped[str] = mapped_column(String(20))
    dataset_name: Mapped[str] = mapped_column(String(200))
    requester: Mapped[str] = mapped_column(index=True)
    granted: Mapped[str]
    uses: Mapped[int]
    used: Mapped[int]
    expires_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    rule_id: Mapped[str] = mapped_column(String(64), index=True)
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class StudyRow(Base):
    """A `Study`."""

    __tablename__ = "studies"
    study_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    statement_id: Mapped[str] = mapped_column(String(500), unique=True)
    title: Mapped[str]
    requester: Mapped[str]
    requested_by: Mapped[str]
    dataset_name: Mapped[str] = mapped_column(String(200))
    content_hash: Mapped[str]
    plan_hash: Mapped[str] = mapped_column(String(64))
    training_plan: Mapped[bytes] = mapped_column(LargeBinary)
    hospitals: Mapped[str]
    readers: Mapped[str]
    received_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    state: Mapped[str] = mapped_column(String(20))
    approval_id: Mapped[str] = mapped_column(String(64), index=True)
    reason: Mapped[str]


class RuleRow(Base):
    """A `Rule`."""

    __tablename__ = "access_rules"
    rule_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    purposes: Mapped[str]
    dataset_names: Mapped[str]
    plan_hashes: Mapped[str]
    requesters: Mapped[str]
    at_most: Mapped[str]
    uses: Mapped[int]
    until: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))
    created_by: Mapped[str]
    created_at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    revoked_at: Mapped[datetime | None] = mapped_column(DateTime(timezone=True))


class LedgerRow(Base):
    """A `LedgerEntry`. The database itself refuses to change or delete one."""

    __tablename__ = "privacy_ledger"
    sequence: Mapped[int] = mapped_column(BigInteger, primary_key=True, autoincrement=False)
    at: Mapped[datetime] = mapped_column(DateTime(timezone=True))
    kind: Mapped[str] = mapped_column(String(20))
    dataset_name: Mapped[str] = mapped_column(String(200), index=True)
    consumer: Mapped[str]
    epsilon: Mapped[str]
    delta: Mapped[str]
    event: Mapped[bytes] = mapped_column(LargeBinary)
    approval_id: Mapped[str] = mapped_column(String(64), index=True)
    study_id: Mapped[str] = mapped_column(String(200))
    round: Mapped[int]
    attempt: Mapped[int]
    count: Mapped[int] = mapped_column(BigInteger)


append_only(Base.metadata.tables["privacy_ledger"])


class ModelUseRow(Base):
    """How many times the rules of a released model changed, and which parties know the latest (JSON)."""

    __tablename__ = "model_uses"
    model_id: Mapped[str] = mapped_column(String(200), primary_key=True)
    revision: Mapped[int]
    told: Mapped[str]


# ---------------------------------------------------------------- values to columns and back

_Pair = tuple[Callable[[Any], Any], Callable[[Any], Any]]


def _optional(pair: _Pair) -> _Pair:
    write, read = pair
    return (
        lambda value: None if value is None else write(value),
        lambda value: None if value is None else read(value),
    )


def _enum(kind: Any) -> _Pair:
    return (lambda value: value.value, kind)


def _write_cost(cost: Spend) -> str:
    return f"{epsilon_text(cost.epsilon)} {decimal_text(cost.delta)}"


def _read_cost(text: str) -> Spend:
    epsilon, _, delta = text.partition(" ")
    return parse_cost(epsilon=epsilon, delta=delta)


_COST: _Pair = (_write_cost, _read_cost)
_LIST: _Pair = (json.dumps, lambda text: tuple(json.loads(text)))
_SET: _Pair = (lambda value: json.dumps(sorted(value)), lambda text: frozenset(json.loads(text)))
_PURPOSES: _Pair = (
    lambda value: json.dumps(sorted(purpose.value for purpose in value)),
    lambda text: frozenset(Purpose(value) for value in json.loads(text)),
)
_MOMENT: _Pair = (lambda value: value, utc)

_FORMS: Mapping[type, Mapping[str, _Pair]] = {
    AccessRequest: {
        "origin": _enum(Origin),
        "purpose": _enum(Purpose),
        "asked": _COST,
        "planned": _optional(_COST),
        "hospitals": _LIST,
        "readers": _LIST,
        "state": _enum(RequestState),
        "received_at": _MOMENT,
        "decided_at": _optional(_MOMENT),
    },
    Approval: {
        "purpose": _enum(Purpose),
        "granted": _COST,
        "expires_at": _optional(_MOMENT),
        "revoked_at": _optional(_MOMENT),
    },
    Study: {"hospitals": _LIST, "readers": _LIST, "state": _enum(StudyState), "received_at": _MOMENT},
    Rule: {
        "purposes": _PURPOSES,
        "dataset_names": _SET,
        "plan_hashes": _SET,
        "requesters": _SET,
        "at_most": _COST,
        "until": _optional(_MOMENT),
        "created_at": _MOMENT,
        "revoked_at": _optional(_MOMENT),
    },
}
_PLAIN: _Pair = (lambda value: value, lambda value: value)


def to_columns(value: Any) -> dict[str, Any]:
    """The row of a request, approval, study or rule."""
    forms = _FORMS[type(value)]
    return {
        name: forms.get(name, _PLAIN)[0](getattr(value, name)) for name in (f.name for f in fields(value))
    }


def to_value(kind: type[Value], row: Any) -> Value:
    """What `to_columns` wrote."""
    forms = _FORMS[kind]
    names = [field.name for field in fields(kind)]  # type: ignore[arg-type]
    return kind(**{name: forms.get(name, _PLAIN)[1](getattr(row, name)) for name in names})


def entry_row(sequence: int, at: datetime, line: NewEntry) -> LedgerRow:
    """The row of a new entry."""
    return LedgerRow(
        sequence=sequence,
        at=at,
        kind=line.kind.value,
        dataset_name=line.dataset_name,
        consumer=line.consumer,
        epsilon=epsilon_text(line.cost.epsilon),
        delta=decimal_text(line.cost.delta),
        event=line.event,
        approval_id=line.approval_id,
        study_id=line.study_id,
        round=line.round,
        attempt=line.attempt,
        count=line.count,
    )


def to_entry(row: LedgerRow) -> LedgerEntry:
    """The entry of a row."""
    line = NewEntry(
        kind=LedgerKind(row.kind),
        dataset_name=row.dataset_name,
        consumer=row.consumer,
        cost=parse_cost(epsilon=row.epsilon, delta=row.delta),
        event=row.event,
        approval_id=row.approval_id,
        study_id=row.study_id,
        round=row.round,
        attempt=row.attempt,
        count=row.count,
    )
    return LedgerEntry(row.sequence, utc(row.at), line)
