"""The tables of accounts, roles, groups and sessions (migration 0002)."""

from __future__ import annotations

from datetime import datetime

from sqlalchemy import BigInteger, DateTime, ForeignKey, LargeBinary, String, Text
from sqlalchemy.orm import Mapped, mapped_column

from services.hospital_node.adapters.tables import Base

_NAME = 64
_MOMENT = DateTime(timezone=True)


class AccountRow(Base):
    """One person. Rows are never deleted, so that a name in the audit trail stays one person's."""

    __tablename__ = "accounts"
    name: Mapped[str] = mapped_column(String(_NAME), primary_key=True)
    full_name: Mapped[str] = mapped_column(String(200))
    state: Mapped[str] = mapped_column(String(16))
    password_hash: Mapped[str] = mapped_column(String(300), default="")
    second_factor: Mapped[bytes] = mapped_column(LargeBinary, default=b"")
    pending_second_factor: Mapped[bytes] = mapped_column(LargeBinary, default=b"")
    last_code_step: Mapped[int] = mapped_column(BigInteger, default=0)
    created_at: Mapped[datetime] = mapped_column(_MOMENT)
    last_login_at: Mapped[datetime | None] = mapped_column(_MOMENT, default=None)


class NodeOwnerRow(Base):
    """One row: a second owner cannot be written."""

    __tablename__ = "node_owner"
    only: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    account: Mapped[str] = mapped_column(ForeignKey("accounts.name"))


class InvitationRow(Base):
    """One unused code per account; the account "" is the node's owner who has none yet."""

    __tablename__ = "invitations"
    code_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    account: Mapped[str] = mapped_column(String(_NAME), unique=True)
    expires_at: Mapped[datetime] = mapped_column(_MOMENT)
    # What the account could do when the code was made, as sorted words: it opens nothing mightier.
    good_for: Mapped[str] = mapped_column(Text)


class WrongAttemptsRow(Base):
    """Wrong passwords for one name from one client, whether an account has the name or not."""

    __tablename__ = "wrong_attempts"
    name: Mapped[str] = mapped_column(String(_NAME), primary_key=True)
    client: Mapped[str] = mapped_column(String(300), primary_key=True)
    count: Mapped[int]
    last_at: Mapped[datetime] = mapped_column(_MOMENT, index=True)


class CustomRoleRow(Base):
    """A role that this hospital made of permissions (a JSON list of their names)."""

    __tablename__ = "custom_roles"
    name: Mapped[str] = mapped_column(String(_NAME), primary_key=True)
    description: Mapped[str] = mapped_column(String(500))
    permissions: Mapped[str] = mapped_column(Text)


class AccountRoleRow(Base):
    """An account has a role of its own."""

    __tablename__ = "account_roles"
    account: Mapped[str] = mapped_column(ForeignKey("accounts.name"), primary_key=True)
    role: Mapped[str] = mapped_column(String(_NAME), primary_key=True)


class GroupRow(Base):
    """Accounts that share roles."""

    __tablename__ = "groups"
    name: Mapped[str] = mapped_column(String(_NAME), primary_key=True)
    description: Mapped[str] = mapped_column(String(500))


class GroupRoleRow(Base):
    """Every member of the group has the role."""

    __tablename__ = "group_roles"
    group: Mapped[str] = mapped_column(ForeignKey("groups.name"), primary_key=True)
    role: Mapped[str] = mapped_column(String(_NAME), primary_key=True)


class GroupMemberRow(Base):
    """An account is in a group."""

    __tablename__ = "group_members"
    group: Mapped[str] = mapped_column(ForeignKey("groups.name"), primary_key=True)
    account: Mapped[str] = mapped_column(ForeignKey("accounts.name"), primary_key=True)


class SessionRow(Base):
    """A session that goes on; ended ones have no row."""

    __tablename__ = "account_sessions"
    session_id: Mapped[str] = mapped_column(String(64), primary_key=True)
    account: Mapped[str] = mapped_column(ForeignKey("accounts.name"), index=True)
    certificate: Mapped[str] = mapped_column(String(64))
    client: Mapped[str] = mapped_column(String(300))
    began_at: Mapped[datetime] = mapped_column(_MOMENT)
    last_used_at: Mapped[datetime] = mapped_column(_MOMENT)
    idle_until: Mapped[datetime] = mapped_column(_MOMENT)
    expires_at: Mapped[datetime] = mapped_column(_MOMENT, index=True)


class RefreshTokenRow(Base):
    """A refresh token of a session, used ones too: one that comes a second time was stolen."""

    __tablename__ = "refresh_tokens"
    token_hash: Mapped[str] = mapped_column(String(64), primary_key=True)
    session_id: Mapped[str] = mapped_column(ForeignKey("account_sessions.session_id"), index=True)
    used: Mapped[bool]
