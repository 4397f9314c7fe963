"""The audit trail."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

from libs.runtime.sql_append_only import append_only_ddl, append_only_removal_ddl

revision = "0003"
down_revision = "0002"

_ONLY_GROW = ("audit_entries", "audit_checkpoints")


def upgrade() -> None:
    """The tables of `libs/runtime/audit/tables.py`, with the triggers that protect them."""
    op.create_table(
        "audit_entries",
        sa.Column("sequence", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("at", sa.String(27), nullable=False),
        sa.Column("action", sa.String(255), nullable=False),
        sa.Column("actor", sa.String(255), nullable=False),
        sa.Column("object", sa.String(255), nullable=False),
        sa.Column("outcome", sa.String(16), nullable=False),
        sa.Column("approval", sa.String(255), nullable=False),
        sa.Column("request_id", sa.String(255), nullable=False),
        sa.Column("details", sa.Text, nullable=False),
        sa.Column("previous_hash", sa.String(64), nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
    )
    op.create_table(
        "audit_head",
        sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("trail", sa.String(255), nullable=False),
        sa.Column("sequence", sa.BigInteger, nullable=False),
        sa.Column("hash", sa.String(64), nullable=False),
        sa.Column("signed_sequence", sa.BigInteger, nullable=False),
        sa.Column("checkpoints", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "audit_checkpoints",
        sa.Column("number", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("sequence", sa.BigInteger, nullable=False, unique=True),
        sa.Column("line", sa.Text, nullable=False),
    )
    for table in _ONLY_GROW:
        for statement in append_only_ddl(table, op.get_bind().dialect.name):
            op.execute(statement)


def downgrade() -> None:
    """Without the trail. Export it first."""
    for table in _ONLY_GROW:
        for statement in append_only_removal_ddl(table, op.get_bind().dialect.name):
            op.execute(statement)
    for table in (*_ONLY_GROW, "audit_head"):
        op.drop_table(table)
