"""Accounts as messages of the wire."""

from __future__ import annotations

from datetime import datetime

from google.protobuf.timestamp_pb2 import Timestamp

from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2 as pb
from services.hospital_node.accounts.domain import Account, AccountState, Group, RoleEntry
from services.hospital_node.accounts.invitations import Invitation
from services.hospital_node.accounts.tokens import Issued
from services.hospital_node.adapters.session_store import OpenSession

_STATES = {
    AccountState.INVITED: pb.User.STATE_INVITED,
    AccountState.ACTIVE: pb.User.STATE_ACTIVE,
    AccountState.DISABLED: pb.User.STATE_DISABLED,
}


def tokens_message(issued: Issued) -> pb.Tokens:
    """For the one who logged in, and nobody else."""
    return pb.Tokens(
        access_token=issued.access_token.expose(),
        refresh_token=issued.refresh_token.expose(),
        access_expires_at=_timestamp(issued.access_expires_at),
        refresh_expires_at=_timestamp(issued.refresh_expires_at),
        session_id=issued.session_id,
    )


def user_message(account: Account, *, now: datetime) -> pb.User:
    """Without anything that could be used to log in."""
    message = pb.User(
        name=account.name,
        full_name=account.full_name,
        roles=account.roles,
        groups=account.groups,
        state=_STATES[account.state],
        second_factor=account.second_factor,
        created_at=_timestamp(account.created_at),
    )
    if account.last_login_at is not None:
        message.last_login_at.FromDatetime(account.last_login_at)
    if account.locked_until is not None and account.locked_until > now:
        message.locked_until.FromDatetime(account.locked_until)
    return message


def invitation_message(invitation: Invitation) -> pb.Invitation:
    """With the code, which is shown this once."""
    return pb.Invitation(code=invitation.code.expose(), expires_at=_timestamp(invitation.expires_at))


def session_message(opened: OpenSession, *, current: str) -> pb.Session:
    """`current` is the session that asks."""
    return pb.Session(
        session_id=opened.session_id,
        began_at=_timestamp(opened.began_at),
        last_used_at=_timestamp(opened.last_used_at),
        expires_at=_timestamp(min(opened.idle_until, opened.expires_at)),
        client_identity=opened.client,
        current=opened.session_id == current,
        user=opened.account,
    )


def role_message(role: RoleEntry) -> pb.Role:
    """Permissions in alphabetical order."""
    return pb.Role(
        name=role.name,
        description=role.description,
        permissions=sorted(role.permissions),
        built_in=role.built_in,
    )


def group_message(group: Group) -> pb.Group:
    """As it is stored."""
    return pb.Group(name=group.name, description=group.description, roles=group.roles, members=group.members)


def _timestamp(moment: datetime) -> Timestamp:
    message = Timestamp()
    message.FromDatetime(moment)
    return message
