"""The tables of an audit trail, for the metadata of any service."""

from __future__ import annotations

from dataclasses import dataclass

import sqlalchemy as sa

from libs.runtime.audit.entry import MAX_TEXT
from libs.runtime.sql_append_only import append_only

ENTRIES, HEAD, CHECKPOINTS = "audit_entries", "audit_head", "audit_checkpoints"


@dataclass(frozen=True)
class AuditTables:
    """Entries and checkpoints, which only grow, and one row that says where the chain ends."""

    entries: sa.Table
    head: sa.Table
    checkpoints: sa.Table


def audit_tables(metadata: sa.MetaData) -> AuditTables:
    """Add the three tables to `metadata`. With `create_all` they come with the triggers that protect them.

    A migration that makes them by hand runs `append_only_ddl` for the entries and the checkpoints.
    """
    tables = AuditTables(entries=_entries(metadata), head=_head(metadata), checkpoints=_checkpoints(metadata))
    append_only(tables.entries)
    append_only(tables.checkpoints)
    return tables


def _entries(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        ENTRIES,
        metadata,
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        # The text that was hashed: no database may change its precision or its zone.
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("action", sa.String(MAX_TEXT), nullable=False),
        sa.Column("actor", sa.String(MAX_TEXT), nullable=False),
        sa.Column("object", sa.String(MAX_TEXT), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("approval", sa.String(MAX_TEXT), nullable=False),
        sa.Column("request_id", sa.String(MAX_TEXT), nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )


def _head(metadata: sa.MetaData) -> sa.Table:
    """One row: who appends next locks it, so that two entries never follow the same one."""
    return sa.Table(
        HEAD,
        metadata,
        sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("trail", sa.String(MAX_TEXT), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("signed_sequence", sa.BigInteger, nullable=False),
        sa.Column("checkpoints", sa.BigInteger, nullable=False),
    )


def _checkpoints(metadata: sa.MetaData) -> sa.Table:
    return sa.Table(
        CHECKPOINTS,
        metadata,
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
        sa.Column("line", sa.Text, nullable=False),
    )
