"""What an account is, what it may do, and what nobody may do to whom. Nothing here does any I/O."""

from __future__ import annotations

import enum
import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from libs.core.errors import InvalidInput, NotFound, PermissionDenied
from libs.rpc.permissions import BUILT_IN_ROLES, Permission
from libs.rpc.token_checks.claims import Role

_NAME = re.compile(r"[a-z][a-z0-9._-]{1,62}", re.ASCII)
MAX_FULL_NAME = 200
MAX_DESCRIPTION = 500
_RESERVED = frozenset(Role)

Directory = Mapping[str, frozenset[Permission]]
"""Every role that an account or a group can be given, with what it allows."""


class AccountState(enum.StrEnum):
    """Invited accounts have no password yet; disabled ones cannot log in and have no sessions."""

    INVITED = "invited"
    ACTIVE = "active"
    DISABLED = "disabled"


@dataclass(frozen=True)
class Account:
    """One person of the hospital's staff. `roles` are its own, `permissions` all that it may do now."""

    name: str
    full_name: str
    state: AccountState
    owner: bool
    roles: tuple[str, ...]
    groups: tuple[str, ...]
    permissions: frozenset[Permission]
    second_factor: bool
    created_at: datetime
    last_login_at: datetime | None
    locked_until: datetime | None = None


@dataclass(frozen=True)
class RoleEntry:
    """A role, built in or made here."""

    name: str
    description: str
    permissions: frozenset[Permission]
    built_in: bool


@dataclass(frozen=True)
class Group:
    """Accounts that share roles."""

    name: str
    description: str
    roles: tuple[str, ...]
    members: tuple[str, ...]


@dataclass(frozen=True)
class Actor:
    """Who is asking, with what they may do at this moment.

    `account` is "" for somebody with a token of another issuer of the hospital: they have no account here.
    `text` names them in the audit trail.
    """

    text: str
    account: str
    permissions: frozenset[Permission]


BUILT_IN_DESCRIPTIONS: Mapping[Role, str] = {
    Role.OWNER: "answers for the hospital's data; exactly one",
    Role.ADMINISTRATOR: "runs accounts and the node, and has no say over data",
    Role.COMPLIANCE_OFFICER: "decides about access and budgets",
    Role.SCIENTIST: "asks for access",
    Role.CLINICIAN: "sees the node and its own account",
    Role.AUDITOR: "reads everything that was decided and done",
}

BUILT_IN: Directory = {
    role.value: granted for role, granted in BUILT_IN_ROLES.items() if role is not Role.OWNER
}
"""The roles that can be given. Ownership is handed over, not given."""


def can_be_name(text: str) -> bool:
    """Whether anything here can have the name; what else callers send need not be looked up."""
    return _NAME.fullmatch(text) is not None


def account_name(text: str) -> str:
    """A name that an account, a role or a group can have; InvalidInput for another."""
    if not can_be_name(text):
        raise InvalidInput(
            "A name has 2 to 63 lower-case letters, digits, dots, dashes or underscores, and begins with a "
            "letter. Choose another one."
        )
    return text


def custom_role_name(text: str) -> str:
    """A name for a role of the hospital's own; those of built-in roles are taken."""
    if text in _RESERVED:
        raise InvalidInput(f"{text} is the name of a built-in role, which cannot be changed. Choose another.")
    return account_name(text)


def short_text(text: str, *, what: str, limit: int) -> str:
    """`text` on one line and not too long; InvalidInput otherwise."""
    if len(text) > limit or not text.isprintable():
        raise InvalidInput(f"The {what} has at most {limit} characters, all printable. Shorten it.")
    return text


def permission_names(names: Iterable[str]) -> frozenset[Permission]:
    """The permissions of a custom role. Ownership cannot be among them."""
    unknown = set(names) - set(Permission)
    if unknown:
        raise InvalidInput(
            f"There is no permission {min(unknown)!r}. See: trefoil role list, which shows them all."
        )
    granted = frozenset(Permission(name) for name in names)
    if Permission.OWNERSHIP in granted:
        raise PermissionDenied("Ownership cannot be part of a role. Hand it over: trefoil user transfer")
    return granted


def permissions_of(roles: Iterable[str], directory: Directory) -> frozenset[Permission]:
    """What these roles allow together; a role that is no longer there allows nothing."""
    return frozenset[Permission]().union(*(directory.get(role, frozenset()) for role in roles))


def require_known_roles(roles: Collection[str], directory: Directory) -> None:
    """NotFound for a role that cannot be given to anybody."""
    for role in roles:
        if role == Role.OWNER:
            raise PermissionDenied("A node has one owner. The owner hands it over: trefoil user transfer")
        if role not in directory:
            raise NotFound(f"There is no role {role!r}. See the roles with: trefoil role list")


def require_may_give(actor: Actor, permissions: Collection[Permission]) -> None:
    """PermissionDenied if anything of it is more than the actor may do: nobody makes anybody mightier."""
    missing = sorted(set(permissions) - actor.permissions)
    if missing:
        raise PermissionDenied(
            f"You lack the permission {missing[0]} yourself, so you cannot give it, nor take over an account "
            "that has it. Ask the node's owner."
        )


def require_not_owner(account: Account) -> None:
    """PermissionDenied for the owner's account, whoever asks."""
    if account.owner:
        raise PermissionDenied(
            "Nobody can change, disable or reset the node's owner. The owner hands the node over with: "
            "trefoil user transfer"
        )
