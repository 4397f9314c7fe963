"""Tables of the gateway: nodes and whether they belong here, data sets, requests for access."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import (
    JSON,
    BigInteger,
    ForeignKey,
    Index,
    LargeBinary,
    String,
    Text,
    UniqueConstraint,
)
from sqlalchemy.orm import Mapped, mapped_column

from services.coordinator.adapters.tables import Base, Sequence, UtcDateTime


class NodeRow(Base):
    """A hospital that has attached."""

    __tablename__ = "nodes"
    identity: Mapped[str] = mapped_column(String(255), primary_key=True)
    name: Mapped[str] = mapped_column(String(255))
    last_seen: Mapped[datetime] = mapped_column(UtcDateTime)
    version: Mapped[str] = mapped_column(String(64))


class DatasetRow(Base):
    """A dataset's description. `modality_key` is the modality in lower case: how it is found."""

    __tablename__ = "datasets"
    dataset_id: Mapped[str] = mapped_column(String(255), primary_key=True)
    hospital: Mapped[str] = mapped_column(String(255), index=True)
    name: Mapped[str] = mapped_column(String(255))
    description: Mapped[str] = mapped_column(Text)
    modality: Mapped[str] = mapped_column(String(64))
    images: Mapped[int] = mapped_column(BigInteger)
    modality_key: Mapped[str] = mapped_column(String(64))
    version: Mapped[int] = mapped_column(BigInteger)
    licence: Mapped[str] = mapped_column(Text)
    content_hash: Mapped[str] = mapped_column(String(64))
    schema_json: Mapped[bytes] = mapped_column(LargeBinary)
    disclosed_counts: Mapped[dict[str, int]] = mapped_column(JSON)
    disclosure: Mapped[str] = mapped_column(String(16))
    mock_recipe: Mapped[bytes] = mapped_column(LargeBinary)
    mock_hash: Mapped[str] = mapped_column(String(64))
    published_at: Mapped[datetime] = mapped_column(UtcDateTime)


class DatasetTagRow(Base):
    """One tag of one dataset, in lower case: how it is found. The index walks a tag in the order of ids."""

    __tablename__ = "dataset_tags"
    __table_args__ = (Index("ix_dataset_tags_tag", "tag", "dataset_id"),)
    dataset_id: Mapped[str] = mapped_column(
        ForeignKey("datasets.dataset_id", ondelete="CASCADE"), primary_key=True
    )
    tag: Mapped[str] = mapped_column(String(64), primary_key=True)


class AssociationRow(Base):
    """One key with which a hospital asked to belong here, and what became of it."""

    __tablename__ = "associations"
    __table_args__ = (UniqueConstraint("hospital", "key_sha256"),)
    sequence: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    hospital: Mapped[str] = mapped_column(String(255))
    key_sha256: Mapped[str] = mapped_column(String(64))
    name: Mapped[str] = mapped_column(String(255))
    state: Mapped[str] = mapped_column(String(16), index=True)
    requested_at: Mapped[datetime] = mapped_column(UtcDateTime)
    decided_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
    decided_by: Mapped[str] = mapped_column(String(255))
    reason: Mapped[str] = mapped_column(Text)


class AnsweredCallRow(Base):
    """A call that changed something, so that its repetition changes nothing."""

    __tablename__ = "answered_calls"
    caller: Mapped[str] = mapped_column(String(255), primary_key=True)
    request_id: Mapped[str] = mapped_column(String(128), primary_key=True)
    content_sha256: Mapped[str] = mapped_column(String(64))


class AccessRequestRow(Base):
    """A request for access, as it was signed, and what its hospital said."""

    __tablename__ = "access_requests"
    __table_args__ = (
        Index("ix_access_requests_hospital", "hospital", "state"),
        Index("ix_access_requests_requester", "requester", "requested_by"),
    )
    sequence: Mapped[int] = mapped_column(Sequence, primary_key=True, autoincrement=True)
    request_id: Mapped[str] = mapped_column(String(128), unique=True)
    requester: Mapped[str] = mapped_column(String(255))
    requested_by: Mapped[str] = mapped_column(String(255))
    requested_at: Mapped[datetime] = mapped_column(UtcDateTime)
    hospital: Mapped[str] = mapped_column(String(255))
    dataset_id: Mapped[str] = mapped_column(String(255))
    purpose: Mapped[str] = mapped_column(String(16))
    plan_hash: Mapped[str] = mapped_column(String(64))
    model_id: Mapped[str] = mapped_column(String(255))
    epsilon: Mapped[str] = mapped_column(String(64))
    delta: Mapped[str] = mapped_column(String(64))
    uses: Mapped[int] = mapped_column(BigInteger)
    training_plan: Mapped[bytes] = mapped_column(LargeBinary)
    statement: Mapped[bytes] = mapped_column(LargeBinary)
    statement_signature: Mapped[bytes] = mapped_column(LargeBinary)
    statement_chain: Mapped[bytes] = mapped_column(LargeBinary)
    delivered: Mapped[bool]
    state: Mapped[str] = mapped_column(String(16))
    reason: Mapped[str] = mapped_column(Text)
    granted_epsilon: Mapped[str] = mapped_column(String(64))
    granted_delta: Mapped[str] = mapped_column(String(64))
    granted_uses: Mapped[int] = mapped_column(BigInteger)
    expires_at: Mapped[datetime | None] = mapped_column(UtcDateTime)
