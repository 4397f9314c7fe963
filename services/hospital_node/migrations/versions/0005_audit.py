"""The audit trail, and calls that were answered."""

revision = "0005"
down_revision = "0004"


def upgrade() -> None:
    """Forward."""


def downgrade() -> None:
    """Back."""
