"""Requests, approvals, rules, the privacy ledger."""

revision = "0003"
down_revision = "0002"


def upgrade() -> None:
    """Forward."""


def downgrade() -> None:
    """Back."""
