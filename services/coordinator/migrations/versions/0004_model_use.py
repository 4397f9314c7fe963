"""Who may ask a model."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

_BY_EVERYBODY = '{"anyone": true, "askers": [], "max_predictions": 0}'


def upgrade() -> None:
    """Models of before were for every client."""
    op.add_column("models", sa.Column("use", sa.JSON, nullable=False, server_default=_BY_EVERYBODY))


def downgrade() -> None:
    """Back: for every client."""
    op.drop_column("models", "use")
