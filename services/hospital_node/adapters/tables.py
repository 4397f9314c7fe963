"""What all tables of the node have in common. A changed table needs a migration (`migrations/versions`)."""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy.orm import DeclarativeBase

from libs.runtime.audit.tables import audit_tables


class Base(DeclarativeBase):
    """All tables of the node."""


AUDIT = audit_tables(Base.metadata)
"""The node's audit trail. Stores append to it within their own transactions."""


def utc(moment: datetime) -> datetime:
    """SQLite forgets the zone; everything is stored in UTC."""
    return moment.replace(tzinfo=UTC) if moment.tzinfo is None else moment.astimezone(UTC)
