"""The hospital's own roles, and groups of accounts that share roles.

Methods work within the caller's transaction. What they give is bounded by what the actor may do.
"""

from __future__ import annotations

from collections.abc import Sequence

from sqlalchemy.orm import Session

from libs.core.errors import FailedPrecondition, NotFound
from libs.runtime.audit.entry import MAX_DETAIL_TEXT, Detail, Event
from libs.runtime.audit.trail import AuditTrail
from services.hospital_node.accounts.domain import (
    MAX_DESCRIPTION,
    Actor,
    Group,
    RoleEntry,
    account_name,
    custom_role_name,
    permission_names,
    permissions_of,
    require_known_roles,
    require_may_give,
    require_not_owner,
    short_text,
)
from services.hospital_node.accounts.telling import tell
from services.hospital_node.adapters.account_store import AccountStore
from services.hospital_node.adapters.role_store import RoleStore


class Roles:
    """Writes and removes them; every change is in the audit trail and counts from the next call on."""

    def __init__(self, *, trail: AuditTrail) -> None:
        self._trail = trail

    def save_role(
        self, session: Session, actor: Actor, *, name: str, description: str, permissions: Sequence[str]
    ) -> RoleEntry:
        """Make or change a role of the hospital's own. Permissions that it gains must be the actor's too."""
        store = RoleStore(session)
        custom_role_name(name)
        short_text(description, what="description", limit=MAX_DESCRIPTION)
        role = RoleEntry(name, description, permission_names(permissions), built_in=False)
        require_may_give(actor, role.permissions - store.directory().get(name, frozenset()))
        store.save_role(role)
        details = {"permissions": _short(", ".join(sorted(role.permissions)))}
        self._append(session, Event("role.saved", actor.text, object=name, details=details))
        return role

    def remove_role(self, session: Session, actor: Actor, *, name: str) -> None:
        """Delete a role that nobody has. FailedPrecondition while somebody has it."""
        store = RoleStore(session)
        custom_role_name(name)
        if name not in store.directory():
            raise NotFound(f"There is no role {name!r}. See the roles with: trefoil role list")
        holders = store.holders(name)
        if holders:
            raise FailedPrecondition(
                f"The role {name} is still given to {', '.join(holders[:5])}. Take it from them first."
            )
        store.remove_role(name)
        self._append(session, Event("role.removed", actor.text, object=name))

    def save_group(
        self,
        session: Session,
        actor: Actor,
        *,
        name: str,
        description: str,
        roles: Sequence[str],
        members: Sequence[str],
    ) -> Group:
        """Make or change a group. A new role or member may bring nobody more than the actor may do."""
        store, accounts = RoleStore(session), AccountStore(session)
        account_name(name)
        short_text(description, what="description", limit=MAX_DESCRIPTION)
        before = store.group(name) or Group(name, "", (), ())
        directory = store.directory()
        require_known_roles(set(roles) - set(before.roles), directory)
        joining = set(members) - set(before.members)
        for member in sorted(joining):
            require_not_owner(accounts.get(member))
        new_roles = roles if joining else set(roles) - set(before.roles)
        require_may_give(actor, permissions_of(new_roles, directory))
        store.save_group(Group(name, description, tuple(roles), tuple(members)))
        details: dict[str, Detail] = {
            "roles": _short(", ".join(sorted(roles))),
            "members": len(set(members)),
        }
        self._append(session, Event("group.saved", actor.text, object=name, details=details))
        return store.get_group(name)

    def remove_group(self, session: Session, actor: Actor, *, name: str) -> None:
        """Delete a group; its members lose its roles."""
        store = RoleStore(session)
        store.get_group(name)
        store.remove_group(name)
        self._append(session, Event("group.removed", actor.text, object=name))

    def _append(self, session: Session, event: Event) -> None:
        tell(self._trail, session, event)


def _short(text: str) -> str:
    """For the trail, which has short texts."""
    return text if len(text) <= MAX_DETAIL_TEXT else f"{text[: MAX_DETAIL_TEXT - 3]}..."
