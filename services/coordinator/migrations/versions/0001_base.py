"""Nodes, data sets, studies, models."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

_SEQUENCE = sa.BigInteger().with_variant(sa.Integer, "sqlite")
_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """What the first release made."""
    op.create_table(
        "nodes",
        sa.Column("identity", sa.String(255), primary_key=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("last_seen", _MOMENT, nullable=False),
    )
    _create_datasets()
    _create_studies()
    op.create_table(
        "models",
        sa.Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("model_id", sa.String(128), nullable=False, unique=True),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("plan", sa.LargeBinary, nullable=False),
        sa.Column("plan_hash", sa.String(64), nullable=False),
        sa.Column("owner", sa.String(255), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("ready", sa.Boolean, nullable=False),
    )


def _create_datasets() -> None:
    op.create_table(
        "datasets",
        sa.Column("dataset_id", sa.String(255), primary_key=True),
        sa.Column("hospital", sa.String(255), nullable=False),
        sa.Column("name", sa.String(255), nullable=False),
        sa.Column("description", sa.Text, nullable=False),
        sa.Column("modality", sa.String(64), nullable=False),
        sa.Column("images", sa.BigInteger, nullable=False),
    )
    op.create_index("ix_datasets_hospital", "datasets", ["hospital"])
    op.create_table(
        "dataset_tags",
        _key_of("dataset_id", sa.String(255), "datasets.dataset_id"),
        sa.Column("tag", sa.String(64), primary_key=True),
    )
    op.create_index("ix_dataset_tags_tag", "dataset_tags", ["tag"])


def _create_studies() -> None:
    op.create_table(
        "studies",
        sa.Column("sequence", _SEQUENCE, primary_key=True, autoincrement=True),
        sa.Column("study_id", sa.String(64), nullable=False, unique=True),
        sa.Column("request_id", sa.String(128), nullable=False),
        sa.Column("title", sa.String(255), nullable=False),
        sa.Column("plan_json", sa.LargeBinary, nullable=False),
        sa.Column("plan_hash", sa.String(64), nullable=False),
        sa.Column("rounds_planned", sa.Integer, nullable=False),
        sa.Column("quorum", sa.Integer, nullable=False),
        sa.Column("parameters", sa.BigInteger, nullable=False),
        sa.Column("creator", sa.String(255), nullable=False),
        sa.Column("created_by", sa.String(255), nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("state", sa.String(32), nullable=False),
        sa.Column("failure", sa.Text, nullable=False),
        sa.Column("calibration", sa.JSON),
        sa.Column("compiled_json", sa.LargeBinary),
        sa.Column("compiled", sa.JSON),
    )
    op.create_index("ix_studies_state", "studies", ["state"])
    op.create_table(
        "study_members",
        _key_of("study_id", sa.String(64), "studies.study_id"),
        sa.Column("hospital", sa.String(255), primary_key=True),
        sa.Column("position", sa.Integer, nullable=False),
        sa.Column("hospital_name", sa.String(255), nullable=False),
        sa.Column("dataset_id", sa.String(255), nullable=False),
        sa.Column("dataset_name", sa.String(255), nullable=False),
        sa.Column("images", sa.BigInteger, nullable=False),
        sa.Column("decision", sa.String(16), nullable=False),
        sa.Column("problem", sa.Text, nullable=False),
        sa.Column("end_told", sa.Boolean, nullable=False),
    )
    op.create_table(
        "rounds",
        _key_of("study_id", sa.String(64), "studies.study_id"),
        sa.Column("number", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("kind", sa.String(16), nullable=False),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("participants", sa.JSON, nullable=False),
        sa.Column("survivors", sa.JSON, nullable=False),
        sa.Column("opened_at", _MOMENT, nullable=False),
        sa.Column("deadline", _MOMENT, nullable=False),
        sa.Column("closed_at", _MOMENT),
        sa.Column("bytes_between_parties", sa.BigInteger, nullable=False),
    )


def _key_of(name: str, kind: sa.types.TypeEngine[str], target: str) -> sa.Column[str]:
    return sa.Column(name, kind, sa.ForeignKey(target, ondelete="CASCADE"), primary_key=True)


def downgrade() -> None:
    """Back to nothing."""
    for table in ("models", "rounds", "study_members", "studies", "dataset_tags", "datasets", "nodes"):
        op.drop_table(table)
