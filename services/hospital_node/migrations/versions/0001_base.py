"""Data sets, proposals and tasks."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None


def upgrade() -> None:
    """The tables of `adapters/database.py`."""
    op.create_table(
        "datasets",
        sa.Column("name", sa.String(200), primary_key=True),
        sa.Column("description", sa.String, nullable=False),
        sa.Column("tags", sa.String, nullable=False),
        sa.Column("path", sa.String, nullable=False),
        sa.Column("images", sa.Integer, nullable=False),
        sa.Column("patients", sa.Integer, nullable=False),
        sa.Column("images_per_class", sa.String, nullable=False),
        sa.Column("content_hash", sa.String, nullable=False),
        sa.Column("published_at", sa.DateTime(timezone=True), nullable=False),
    )
    op.create_table(
        "proposals",
        sa.Column("study_id", sa.String(200), primary_key=True),
        sa.Column("title", sa.String, nullable=False),
        sa.Column("requested_by", sa.String, nullable=False),
        sa.Column("dataset_name", sa.String, nullable=False),
        sa.Column("plan_hash", sa.String, nullable=False),
        sa.Column("training_plan", sa.LargeBinary, nullable=False),
        sa.Column("hospitals", sa.String, nullable=False),
        sa.Column("readers", sa.String, nullable=False),
        sa.Column("received_at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("reason", sa.String, nullable=False),
    )
    op.create_table(
        "tasks",
        sa.Column("study_id", sa.String(200), primary_key=True),
        sa.Column("kind", sa.String(20), primary_key=True),
        sa.Column("round", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("attempt", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", sa.String, nullable=False),
        sa.Column("base_model_id", sa.String, nullable=False),
        sa.Column("upload_id", sa.String, nullable=False),
        sa.Column("bound_bits", sa.String, nullable=False),
        sa.Column("failure_code", sa.String, nullable=False),
        sa.Column("failure", sa.String, nullable=False),
    )


def downgrade() -> None:
    """Back to nothing."""
    for table in ("tasks", "proposals", "datasets"):
        op.drop_table(table)
