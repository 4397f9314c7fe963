"""Whether the hospital takes part in the federation, and which calls changed that."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"


def upgrade() -> None:
    """The tables of `adapters/membership.py`. Without a row the hospital takes part."""
    op.create_table(
        "membership",
        sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("state", sa.String(16), nullable=False),
    )
    op.create_table("membership_calls", sa.Column("request_id", sa.String(128), primary_key=True))


def downgrade() -> None:
    """Back: every hospital takes part."""
    op.drop_table("membership_calls")
    op.drop_table("membership")
