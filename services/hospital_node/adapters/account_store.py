"""Accounts in the database: their state, credentials, invitations and wrong attempts."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from sqlalchemy import delete, select
from sqlalchemy.orm import InstrumentedAttribute, Session

from libs.core.errors import NotFound
from libs.rpc.permissions import Permission
from libs.rpc.token_checks.claims import Role
from services.hospital_node.accounts.attempts import ALL_NAMES, FORGOTTEN_AFTER, Attempts, counted
from services.hospital_node.accounts.domain import Account, AccountState, can_be_name, permissions_of
from services.hospital_node.adapters.account_tables import (
    AccountRoleRow,
    AccountRow,
    GroupMemberRow,
    GroupRoleRow,
    InvitationRow,
    NodeOwnerRow,
    WrongAttemptsRow,
)
from services.hospital_node.adapters.role_store import RoleStore
from services.hospital_node.adapters.tables import utc

_ONLY = 1
OWNERLESS = ""
"""Stands in an invitation for the owner that the node does not have yet."""


@dataclass(frozen=True)
class Credentials:
    """What a login is compared with. `repr` shows none of it."""

    name: str
    state: AccountState
    password_hash: str
    second_factor: bytes
    pending_second_factor: bytes
    last_code_step: int

    def __repr__(self) -> str:
        return f"Credentials(name={self.name!r}, <redacted>)"


class AccountStore:
    """Accounts as one transaction sees them. Moments are in UTC."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def find(self, name: str) -> Account | None:
        """The account, with all that it may do; None if there is none."""
        row = self._found(name)
        return None if row is None else self._accounts([row])[0]

    def get(self, name: str) -> Account:
        """The account. NotFound if there is none."""
        account = self.find(name)
        if account is None:
            raise NotFound(f"There is no account {name!r}. See the accounts with: trefoil user list")
        return account

    def page(self, *, after: str, limit: int) -> list[Account]:
        """Up to `limit` accounts by name, after that name."""
        query = select(AccountRow).where(AccountRow.name > after).order_by(AccountRow.name).limit(limit)
        return self._accounts(self._session.scalars(query).all())

    def add(self, *, name: str, full_name: str, state: AccountState, now: datetime) -> None:
        """A new account without roles and credentials."""
        self._session.add(AccountRow(name=name, full_name=full_name, state=state.value, created_at=now))
        self._session.flush()

    def owner(self) -> str | None:
        """The name of the node's owner; None while it has none."""
        row = self._session.get(NodeOwnerRow, _ONLY)
        return None if row is None else row.account

    def set_owner(self, name: str) -> None:
        """Make this account the one owner."""
        self._session.merge(NodeOwnerRow(only=_ONLY, account=name))
        self._session.flush()

    def set_state(self, name: str, state: AccountState) -> None:
        """Change whether it can log in."""
        self._row(name).state = state.value

    def set_full_name(self, name: str, full_name: str) -> None:
        """Change whose account it is."""
        self._row(name).full_name = full_name

    def set_roles(self, name: str, roles: tuple[str, ...]) -> None:
        """Replace its own roles; those of its groups stay."""
        self._session.execute(delete(AccountRoleRow).where(AccountRoleRow.account == name))
        self._session.add_all(AccountRoleRow(account=name, role=role) for role in sorted(set(roles)))
        self._session.flush()

    def set_groups(self, name: str, groups: tuple[str, ...]) -> None:
        """Replace the groups that it is in."""
        self._session.execute(delete(GroupMemberRow).where(GroupMemberRow.account == name))
        self._session.add_all(GroupMemberRow(group=group, account=name) for group in sorted(set(groups)))
        self._session.flush()

    def permissions(self, name: str) -> frozenset[Permission]:
        """All that the account may do by its own roles and those of its groups; the owner everything."""
        if self.owner() == name:
            return frozenset(Permission)
        own = select(AccountRoleRow.role).where(AccountRoleRow.account == name)
        shared = select(GroupRoleRow.role).join(GroupMemberRow, GroupMemberRow.group == GroupRoleRow.group)
        roles = self._session.scalars(own.union(shared.where(GroupMemberRow.account == name)))
        return permissions_of(roles.all(), RoleStore(self._session).directory())

    # ---------------------------------------------------------------- credentials

    def credentials(self, name: str) -> Credentials | None:
        """What its logins are compared with; None if there is no such account."""
        row = self._found(name)
        if row is None:
            return None
        return Credentials(
            name=row.name,
            state=AccountState(row.state),
            password_hash=row.password_hash,
            second_factor=row.second_factor,
            pending_second_factor=row.pending_second_factor,
            last_code_step=row.last_code_step,
        )

    def set_password(self, name: str, password_hash: str) -> None:
        """Replace the password; "" takes it away."""
        self._row(name).password_hash = password_hash

    def set_pending_second_factor(self, name: str, sealed: bytes) -> None:
        """A second factor that is not confirmed yet."""
        self._row(name).pending_second_factor = sealed

    def set_second_factor(self, name: str, sealed: bytes, *, step: int) -> None:
        """The second factor that logins need from now on; b"" for none. Codes up to `step` are used up."""
        row = self._row(name)
        row.second_factor, row.pending_second_factor, row.last_code_step = sealed, b"", step

    def use_code(self, name: str, step: int) -> None:
        """Codes up to this step are used up."""
        self._row(name).last_code_step = step

    def logged_in(self, name: str, now: datetime) -> None:
        """Remember when."""
        self._row(name).last_login_at = now

    # ---------------------------------------------------------------- invitations

    def invite(self, name: str, *, code_hash: str, expires_at: datetime) -> None:
        """The account's one code from now on; an earlier one is worth nothing.

        It is good for what the account may do now: whoever made it keeps it when others make the account
        mightier, and must not become that by it.
        """
        self.uninvite(name)
        row = InvitationRow(code_hash=code_hash, account=name, expires_at=expires_at)
        row.good_for = " ".join(sorted(self._may(name)))
        self._session.add(row)
        self._session.flush()

    def uninvite(self, name: str) -> None:
        """Take its code back, if it has one."""
        self._session.execute(delete(InvitationRow).where(InvitationRow.account == name))

    def invited(self, code_hash: str, now: datetime) -> str | None:
        """Whose code that is; None if used, too old, or if the account may do more since."""
        row = self._session.get(InvitationRow, code_hash)
        if row is None or utc(row.expires_at) <= now or self._may(row.account) - set(row.good_for.split()):
            return None
        return row.account

    def _may(self, name: str) -> set[str]:
        """The account's permissions; the owner that the node does not have yet is no account."""
        return set() if name == OWNERLESS else {str(granted) for granted in self.get(name).permissions}

    # ---------------------------------------------------------------- wrong attempts

    def attempts(self, name: str, client: str) -> Attempts | None:
        """The wrong attempts on this name from this client; None without any."""
        row = self._session.get(WrongAttemptsRow, (name, client))
        return None if row is None else Attempts(row.count, utc(row.last_at))

    def count_attempt(self, name: str, client: str, now: datetime) -> Attempts:
        """One more. Those that are a day old are forgotten, for all names."""
        row = self._session.get(WrongAttemptsRow, (name, client))
        if row is None:
            # Whoever makes a new row pays for the old ones, so that there is never an end of them.
            old = WrongAttemptsRow.last_at <= now - FORGOTTEN_AFTER
            self._session.execute(delete(WrongAttemptsRow).where(old))
            row = WrongAttemptsRow(name=name, client=client, count=1, last_at=now)
            self._session.add(row)
            return Attempts(1, now)
        attempts = counted(Attempts(row.count, utc(row.last_at)), now)
        row.count, row.last_at = attempts.count, attempts.last_at
        return attempts

    def forgive(self, name: str, client: str) -> None:
        """It was right: nothing counts for this name, and one less for all names together."""
        self._session.execute(
            delete(WrongAttemptsRow).where(WrongAttemptsRow.name == name, WrongAttemptsRow.client == client)
        )
        everything = self._session.get(WrongAttemptsRow, (ALL_NAMES, client))
        if everything is not None:
            everything.count = max(0, everything.count - 1)

    def forgive_everywhere(self, name: str) -> None:
        """Nothing counts for this name any more, from whichever client."""
        self._session.execute(delete(WrongAttemptsRow).where(WrongAttemptsRow.name == name))

    def _found(self, name: str) -> AccountRow | None:
        """The row, if the name can be one: databases differ in what texts they take."""
        return self._session.get(AccountRow, name) if can_be_name(name) else None

    def _row(self, name: str) -> AccountRow:
        row = self._found(name)
        if row is None:
            raise NotFound(f"There is no account {name!r}. See the accounts with: trefoil user list")
        return row

    def _accounts(self, rows: Sequence[AccountRow]) -> list[Account]:
        """The accounts of these rows; so many questions to the database, however many rows there are."""
        names = [row.name for row in rows]
        roles = self._grouped(
            select(AccountRoleRow.account, AccountRoleRow.role), AccountRoleRow.account, names
        )
        groups = self._grouped(
            select(GroupMemberRow.account, GroupMemberRow.group), GroupMemberRow.account, names
        )
        shared = self._grouped(
            select(GroupMemberRow.account, GroupRoleRow.role).join(
                GroupRoleRow, GroupRoleRow.group == GroupMemberRow.group
            ),
            GroupMemberRow.account,
            names,
        )
        wrong = select(WrongAttemptsRow).where(WrongAttemptsRow.name.in_(names))
        locks: dict[str, datetime] = {}
        for row in self._session.scalars(wrong):
            until = Attempts(row.count, utc(row.last_at)).locked_until()
            if until is not None:
                locks[row.name] = max(until, locks.get(row.name, until))
        owner, directory = self.owner(), RoleStore(self._session).directory()
        return [
            Account(
                name=row.name,
                full_name=row.full_name,
                state=AccountState(row.state),
                owner=row.name == owner,
                roles=(Role.OWNER.value,) if row.name == owner else tuple(sorted(roles[row.name])),
                groups=tuple(sorted(groups[row.name])),
                permissions=frozenset(Permission)
                if row.name == owner
                else permissions_of(roles[row.name] | shared[row.name], directory),
                second_factor=row.second_factor != b"",
                created_at=utc(row.created_at),
                last_login_at=None if row.last_login_at is None else utc(row.last_login_at),
                locked_until=locks.get(row.name),
            )
            for row in rows
        ]

    def _grouped(
        self, pairs: Any, column: InstrumentedAttribute[str], names: list[str]
    ) -> defaultdict[str, set[str]]:
        """The second column's values by those of the first; `pairs` selects the two."""
        found: defaultdict[str, set[str]] = defaultdict(set)
        for account, value in self._session.execute(pairs.where(column.in_(names))):
            found[account].add(value)
        return found
