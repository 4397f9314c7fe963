"""Associations, richer data sets, access requests, what scientists signed."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_MOMENT = sa.DateTime(timezone=True)
_SIGNED = ("statement", "statement_signature", "statement_chain")


def upgrade() -> None:
    """Forward. The catalogue empties: no node has been approved yet, and those that are publish again."""
    op.execute("DELETE FROM dataset_tags")
    op.execute("DELETE FROM datasets")
    op.execute("DELETE FROM nodes")
    op.add_column("nodes", sa.Column("version", sa.String(64), nullable=False, server_default=""))
    for column in _dataset_columns():
        op.add_column("datasets", column)
    op.drop_index("ix_dataset_tags_tag", "dataset_tags")
    op.create_index("ix_dataset_tags_tag", "dataset_tags", ["tag", "dataset_id"])
    for name in _SIGNED:
        op.add_column("studies", sa.Column(name, sa.LargeBinary))
    _create_associations()
    _create_access_requests()


def _dataset_columns() -> list[sa.Column[object]]:
    """Without rows there is nothing to fill them with; SQLite wants a default all the same."""
    columns = (
        ("modality_key", sa.String(64), ""),
        ("version", sa.BigInteger(), "0"),
        ("licence", sa.Text(), ""),
        ("content_hash", sa.String(64), ""),
        ("schema_json", sa.LargeBinary(), ""),
        ("disclosed_counts", sa.JSON(), "{}"),
        ("disclosure", sa.String(16), ""),
        ("mock_recipe", sa.LargeBinary(), ""),
        ("mock_hash", sa.String(64), ""),
        ("published_at", _MOMENT, "1970-01-01 00:00:00"),
    )
    return [sa.Column(name, kind, nullable=False, server_default=value) for name, kind, value in columns]


def _create_associations() -> None:
    op.create_table(
        "associations",
        sa.Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("hospital", sa.String(255), nullable=False),
        sa.Column("key_sha256", sa.String(64), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("requested_at", _MOMENT, nullable=False),
        sa.Column("decided_at", _MOMENT),
        sa.Column("decided_by", sa.String(255), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.UniqueConstraint("hospital", "key_sha256"),
    )
    op.create_index("ix_associations_state", "associations", ["state"])
    op.create_table(
        "answered_calls",
        sa.Column("caller", sa.String(255), primary_key=True),
        sa.Column("request_id", sa.String(128), primary_key=True),
        sa.Column("content_sha256", sa.String(64), nullable=False),
    )


def _create_access_requests() -> None:
    op.create_table(
        "access_requests",
        sa.Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("request_id", sa.String(128), nullable=False, unique=True),
        sa.Column("requester", sa.String(255), nullable=False),
        sa.Column("requested_by", sa.String(255), nullable=False),
        sa.Column("requested_at", _MOMENT, nullable=False),
        sa.Column("hospital", sa.String(255), nullable=False),
        sa.Column("dataset_id", sa.String(255), nullable=False),
        sa.Column("purpose", sa.String(16), nullable=False),
        sa.Column("plan_hash", sa.String(64), nullable=False),
        sa.Column("model_id", sa.String(255), nullable=False),
        sa.Column("epsilon", sa.String(64), nullable=False),
        sa.Column("delta", sa.String(64), nullable=False),
        sa.Column("uses", sa.BigInteger, nullable=False),
        sa.Column("training_plan", sa.LargeBinary, nullable=False),
        sa.Column("statement", sa.LargeBinary, nullable=False),
        sa.Column("statement_signature", sa.LargeBinary, nullable=False),
        sa.Column("statement_chain", sa.LargeBinary, nullable=False),
        sa.Column("delivered", sa.Boolean, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("reason", sa.Text, nullable=False),
        sa.Column("granted_epsilon", sa.String(64), nullable=False),
        sa.Column("granted_delta", sa.String(64), nullable=False),
        sa.Column("granted_uses", sa.BigInteger, nullable=False),
        sa.Column("expires_at", _MOMENT),
    )
    op.create_index("ix_access_requests_hospital", "access_requests", ["hospital", "state"])
    op.create_index("ix_access_requests_requester", "access_requests", ["requester", "requested_by"])


def downgrade() -> None:
    """Back, without what the old release has no place for."""
    for table in ("access_requests", "answered_calls", "associations"):
        op.drop_table(table)
    for name in _SIGNED:
        op.drop_column("studies", name)
    op.drop_index("ix_dataset_tags_tag", "dataset_tags")
    op.create_index("ix_dataset_tags_tag", "dataset_tags", ["tag"])
    for column in _dataset_columns():
        op.drop_column("datasets", column.name)
    op.drop_column("nodes", "version")
