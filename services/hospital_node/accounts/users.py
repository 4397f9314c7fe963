"""Accounts of others: invited, changed, reset. Nobody makes anybody mightier than they are themselves.

Methods that take a database session work within the caller's transaction, so that the answer of a request
with an id is stored together with what it changed.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence

from sqlalchemy.orm import Session

from libs.core.clock import Clock
from libs.core.errors import AlreadyExists, FailedPrecondition, PermissionDenied
from libs.rpc.token_checks.claims import Role
from libs.runtime.audit.entry import MAX_DETAIL_TEXT, Event
from libs.runtime.audit.trail import AuditTrail
from services.hospital_node.accounts.domain import (
    MAX_FULL_NAME,
    Account,
    AccountState,
    Actor,
    account_name,
    permissions_of,
    require_known_roles,
    require_may_give,
    require_not_owner,
    short_text,
)
from services.hospital_node.accounts.invitations import Invitation, Invitations
from services.hospital_node.accounts.sessions import Sessions
from services.hospital_node.accounts.telling import tell
from services.hospital_node.adapters.account_store import AccountStore
from services.hospital_node.adapters.role_store import RoleStore

AFTER_OWNERSHIP = (Role.ADMINISTRATOR.value,)
"""What an owner is who has handed the node over."""


class Users:
    """Invites, changes and resets accounts; hands the node over."""

    def __init__(
        self, *, trail: AuditTrail, invitations: Invitations, sessions: Sessions, clock: Clock
    ) -> None:
        self._trail, self._invitations, self._sessions, self._clock = trail, invitations, sessions, clock

    def invite(
        self,
        session: Session,
        actor: Actor,
        *,
        name: str,
        full_name: str,
        roles: Sequence[str],
        groups: Sequence[str],
    ) -> tuple[Account, Invitation]:
        """A new account and the code for its password. AlreadyExists if the name was ever used."""
        store = AccountStore(session)
        account_name(name)
        short_text(full_name, what="full name", limit=MAX_FULL_NAME)
        if store.find(name) is not None:
            raise AlreadyExists(f"There is an account {name} already. Choose another name.")
        self._require_may_give(session, actor, roles=roles, groups=groups)
        store.add(name=name, full_name=full_name, state=AccountState.INVITED, now=self._clock.now())
        store.set_roles(name, tuple(roles))
        store.set_groups(name, tuple(groups))
        invitation = self._invitations.make(session, name)
        details = {"roles": _listed(roles), "groups": _listed(groups)}
        self._append(session, Event("user.invited", actor.text, object=name, details=details))
        return store.get(name), invitation

    def change(
        self,
        session: Session,
        actor: Actor,
        *,
        name: str,
        roles: Sequence[str] | None = None,
        groups: Sequence[str] | None = None,
        enabled: bool | None = None,
    ) -> Account:
        """Replace its roles or groups, disable or enable it; None leaves that as it is.

        Effective with the account's next call. Disabling ends its sessions and its invitation.
        """
        store = AccountStore(session)
        before = store.get(name)
        require_not_owner(before)
        if roles is not None:
            self._require_may_give(session, actor, roles=set(roles) - set(before.roles))
            store.set_roles(name, tuple(roles))
        if groups is not None:
            self._require_may_give(session, actor, groups=set(groups) - set(before.groups))
            store.set_groups(name, tuple(groups))
        if enabled is not None:
            self._set_enabled(session, actor, before, enabled)
        after = store.get(name)
        details = {
            "roles": _listed(after.roles),
            "groups": _listed(after.groups),
            "state": after.state.value,
        }
        self._append(session, Event("user.changed", actor.text, object=name, details=details))
        return after

    def reset(self, session: Session, actor: Actor, *, name: str) -> Invitation:
        """Take password, second factor and sessions away; a code for new ones.

        Who gets the code gets the account, so nobody resets one that may do more than they.
        """
        store = AccountStore(session)
        account = store.get(name)
        require_not_owner(account)
        require_may_give(actor, account.permissions)
        if account.state is AccountState.DISABLED:
            raise FailedPrecondition(f"The account {name} is disabled. Enable it first: trefoil user enable")
        store.set_password(name, "")
        store.set_second_factor(name, b"", step=0)
        store.set_state(name, AccountState.INVITED)
        store.forgive_everywhere(name)
        ended = self._sessions.end_all(session, name)
        invitation = self._invitations.make(session, name)
        details = {"sessions_ended": ended}
        self._append(session, Event("user.reset", actor.text, object=name, details=details))
        return invitation

    def transfer(self, session: Session, actor: Actor, *, to: str) -> None:
        """Make another active account the owner. The actor's password was confirmed by the caller.

        PermissionDenied unless the actor is the owner at this moment.
        """
        store = AccountStore(session)
        if not actor.account or store.owner() != actor.account:
            raise PermissionDenied("Only the owner hands the node over.")
        heir = store.get(to)
        if heir.state is not AccountState.ACTIVE or to == actor.account:
            raise FailedPrecondition(f"The account {to} cannot become the owner. Name another, active one.")
        store.set_owner(to)
        store.set_roles(to, ())
        store.set_roles(actor.account, AFTER_OWNERSHIP)
        self._append(session, Event("ownership.transferred", actor.text, object=to))

    def _set_enabled(self, session: Session, actor: Actor, before: Account, enabled: bool) -> None:
        store = AccountStore(session)
        if not enabled:
            if before.name == actor.account:
                raise FailedPrecondition("You cannot disable your own account. Ask another administrator.")
            store.set_state(before.name, AccountState.DISABLED)
            store.uninvite(before.name)
            self._sessions.end_all(session, before.name)
        elif before.state is AccountState.DISABLED:
            credentials = store.credentials(before.name)
            has_password = credentials is not None and credentials.password_hash != ""
            store.set_state(before.name, AccountState.ACTIVE if has_password else AccountState.INVITED)

    def _require_may_give(
        self,
        session: Session,
        actor: Actor,
        *,
        roles: Collection[str] = (),
        groups: Collection[str] = (),
    ) -> None:
        """Every role, own or by group, has to be there and allow nothing that the actor may not do."""
        store = RoleStore(session)
        directory = store.directory()
        require_known_roles(roles, directory)
        given = permissions_of(roles, directory)
        for name in groups:
            given |= permissions_of(store.get_group(name).roles, directory)
        require_may_give(actor, given)

    def _append(self, session: Session, event: Event) -> None:
        tell(self._trail, session, event)


def _listed(names: Collection[str]) -> str:
    """For the trail, which has short texts."""
    text = ", ".join(sorted(names))
    return text if len(text) <= MAX_DETAIL_TEXT else f"{text[: MAX_DETAIL_TEXT - 3]}..."
