"""Accounts, roles, groups, sessions."""

revision = "0002"
down_revision = "0001"


def upgrade() -> None:
    """Forward."""


def downgrade() -> None:
    """Back."""
