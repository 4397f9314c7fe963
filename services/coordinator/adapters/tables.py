"""Tables of studies and models. A changed table needs a migration (`migrations/versions`)."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

from sqlalchemy import (
    JSON,
    BigInteger,
    DateTime,
    Dialect,
    ForeignKey,
    Integer,
    LargeBinary,
    String,
    Text,
    TypeDecorator,
)
from sqlalchemy.orm import DeclarativeBase, Mapped, mapped_column, relationship

from libs.runtime.audit.tables import audit_tables

Sequence = BigInteger().with_variant(Integer, "sqlite")  # SQLite numbers rows by itself only in INTEGER keys


class UtcDateTime(TypeDecorator[datetime]):
    """A moment in UTC. SQLite drops the zone, so reading puts it back; writing refuses a naive moment."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """To the database."""
        if value is not None and value.tzinfo is None:
            raise ValueError("a moment without a zone cannot be stored")
        return None if value is None else value.astimezone(UTC)

    def process_result_value(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        """From the database."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


class Base(DeclarativeBase):
    """All tables."""


AUDIT = audit_tables(Base.metadata)
"""The coordinator's audit trail. What changes a row appends to it in the same transaction."""


class StudyRow(Base):
    """A study. `sequence` orders the list and is its page key."""

    __tablename__ = "studies"
    sequence: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    study_id: Mapped[str] = mapped_column(String(64), unique=True)
    request_id: Mapped[str] = mapped_column(String(128))
    title: Mapped[str] = mapped_column(String(255))
    plan_json: Mapped[bytes] = mapped_column(LargeBinary)
    plan_hash: Mapped[str] = mapped_column(String(64))
    rounds_planned: Mapped[int]
    quorum: Mapped[int]
    parameters: Mapped[int] = mapped_column(BigInteger)
    creator: Mapped[str] = mapped_column(String(255))
    created_by: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    state: Mapped[str] = mapped_column(String(32), index=True)
    failure: Mapped[str] = mapped_column(Text, default="")
    calibration: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    compiled_json: Mapped[bytes | None] = mapped_column(LargeBinary)
    compiled: Mapped[dict[str, Any] | None] = mapped_column(JSON)
    statement: Mapped[bytes | None] = mapped_column(LargeBinary)
    statement_signature: Mapped[bytes | None] = mapped_column(LargeBinary)
    statement_chain: Mapped[bytes | None] = mapped_column(LargeBinary)
    members: Mapped[list[MemberRow]] = relationship(
        cascade="all, delete-orphan", lazy="selectin", order_by="MemberRow.position"
    )
    rounds: Mapped[list[RoundRow]] = relationship(
        cascade="all, delete-orphan", lazy="selectin", order_by="RoundRow.number"
    )


class MemberRow(Base):
    """One hospital in a study."""

    __tablename__ = "study_members"
    study_id: Mapped[str] = mapped_column(
        ForeignKey("studies.study_id", ondelete="CASCADE"), primary_key=True
    )
    hospital: Mapped[str] = mapped_column(String(255), primary_key=True)
    position: Mapped[int]
    hospital_name: Mapped[str] = mapped_column(String(255))
    dataset_id: Mapped[str] = mapped_column(String(255))
    dataset_name: Mapped[str] = mapped_column(String(255))
    images: Mapped[int] = mapped_column(BigInteger)
    decision: Mapped[str] = mapped_column(String(16))
    problem: Mapped[str] = mapped_column(Text)
    end_told: Mapped[bool]


class RoundRow(Base):
    """One round in its current attempt. Participants are read and written only together, hence JSON."""

    __tablename__ = "rounds"
    study_id: Mapped[str] = mapped_column(
        ForeignKey("studies.study_id", ondelete="CASCADE"), primary_key=True
    )
    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    kind: Mapped[str] = mapped_column(String(16))
    attempt: Mapped[int]
    state: Mapped[str] = mapped_column(String(16))
    participants: Mapped[list[dict[str, str]]] = mapped_column(JSON)
    survivors: Mapped[list[str]] = mapped_column(JSON)
    opened_at: Mapped[datetime] = mapped_column(UtcDateTime)
    deadline: Mapped[datetime] = mapped_column(UtcDateTime)
    closed_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    bytes_between_parties: Mapped[int] = mapped_column(BigInteger)


class ModelRow(Base):
    """A model that can be asked."""

    __tablename__ = "models"
    sequence: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    model_id: Mapped[str] = mapped_column(String(128), unique=True)
    name: Mapped[str] = mapped_column(String(255))
    plan: Mapped[bytes] = mapped_column(LargeBinary)
    plan_hash: Mapped[str] = mapped_column(String(64))
    owner: Mapped[str] = mapped_column(String(255))
    created_at: Mapped[datetime] = mapped_column(UtcDateTime)
    ready: Mapped[bool]
    use: Mapped[dict[str, Any]] = mapped_column(JSON)
