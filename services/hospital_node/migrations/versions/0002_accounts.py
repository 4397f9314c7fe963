"""Accounts, roles, groups, sessions, and the answers of calls that change something."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

_MOMENT = sa.DateTime(timezone=True)


def upgrade() -> None:
    """The tables of `adapters/answers.py` and `adapters/account_tables.py`."""
    op.create_table(
        "answered_calls",
        sa.Column("caller", sa.String(500), primary_key=True),
        sa.Column("method", sa.String(200), primary_key=True),
        sa.Column("request_id", sa.String(64), primary_key=True),
        sa.Column("request_hash", sa.String(64), nullable=False),
        sa.Column("answer", sa.LargeBinary, nullable=False),
        sa.Column("answered_at", _MOMENT, nullable=False, index=True),
    )
    _accounts()
    _roles_and_groups()
    _sessions()


def _accounts() -> None:
    op.create_table(
        "accounts",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("full_name", sa.String(200), nullable=False),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("password_hash", sa.String(300), nullable=False),
        sa.Column("second_factor", sa.LargeBinary, nullable=False),
        sa.Column("pending_second_factor", sa.LargeBinary, nullable=False),
        sa.Column("last_code_step", sa.BigInteger, nullable=False),
        sa.Column("created_at", _MOMENT, nullable=False),
        sa.Column("last_login_at", _MOMENT),
    )
    op.create_table(
        "node_owner",
        sa.Column("only", sa.Integer, primary_key=True, autoincrement=False),
        sa.Column("account", sa.String(64), sa.ForeignKey("accounts.name"), nullable=False),
    )
    op.create_table(
        "invitations",
        sa.Column("code_hash", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(64), nullable=False, unique=True),
        sa.Column("expires_at", _MOMENT, nullable=False),
        sa.Column("good_for", sa.Text, nullable=False),
    )
    op.create_table(
        "wrong_attempts",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("client", sa.String(300), primary_key=True),
        sa.Column("count", sa.Integer, nullable=False),
        sa.Column("last_at", _MOMENT, nullable=False, index=True),
    )


def _roles_and_groups() -> None:
    op.create_table(
        "custom_roles",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("description", sa.String(500), nullable=False),
        sa.Column("permissions", sa.Text, nullable=False),
    )
    op.create_table(
        "account_roles",
        sa.Column("account", sa.String(64), sa.ForeignKey("accounts.name"), primary_key=True),
        sa.Column("role", sa.String(64), primary_key=True),
    )
    op.create_table(
        "groups",
        sa.Column("name", sa.String(64), primary_key=True),
        sa.Column("description", sa.String(500), nullable=False),
    )
    op.create_table(
        "group_roles",
        sa.Column("group", sa.String(64), sa.ForeignKey("groups.name"), primary_key=True),
        sa.Column("role", sa.String(64), primary_key=True),
    )
    op.create_table(
        "group_members",
        sa.Column("group", sa.String(64), sa.ForeignKey("groups.name"), primary_key=True),
        sa.Column("account", sa.String(64), sa.ForeignKey("accounts.name"), primary_key=True),
    )


def _sessions() -> None:
    op.create_table(
        "account_sessions",
        sa.Column("session_id", sa.String(64), primary_key=True),
        sa.Column("account", sa.String(64), sa.ForeignKey("accounts.name"), nullable=False, index=True),
        sa.Column("certificate", sa.String(64), nullable=False),
        sa.Column("client", sa.String(300), nullable=False),
        sa.Column("began_at", _MOMENT, nullable=False),
        sa.Column("last_used_at", _MOMENT, nullable=False),
        sa.Column("idle_until", _MOMENT, nullable=False),
        sa.Column("expires_at", _MOMENT, nullable=False, index=True),
    )
    op.create_table(
        "refresh_tokens",
        sa.Column("token_hash", sa.String(64), primary_key=True),
        sa.Column(
            "session_id",
            sa.String(64),
            sa.ForeignKey("account_sessions.session_id"),
            nullable=False,
            index=True,
        ),
        sa.Column("used", sa.Boolean, nullable=False),
        sa.ForeignKeyConstraint(["session_id"], ["account_sessions.session_id"]),
    )


def downgrade() -> None:
    """Back to data sets, proposals and tasks."""
    sessions = ("refresh_tokens", "account_sessions")
    groups = ("group_members", "group_roles", "groups", "account_roles", "custom_roles")
    accounts = ("wrong_attempts", "invitations", "node_owner", "accounts")
    for table in (*sessions, *groups, *accounts, "answered_calls"):
        op.drop_table(table)
