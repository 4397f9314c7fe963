"""Versions, disclosure and mocks of data sets."""

revision = "0004"
down_revision = "0003"


def upgrade() -> None:
    """Forward."""


def downgrade() -> None:
    """Back."""
