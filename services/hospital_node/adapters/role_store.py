"""Roles and groups in the database."""

from __future__ import annotations

import json

from sqlalchemy import delete, select
from sqlalchemy.orm import Session

from libs.core.errors import NotFound
from libs.rpc.permissions import BUILT_IN_ROLES, Permission
from services.hospital_node.accounts.domain import (
    BUILT_IN,
    BUILT_IN_DESCRIPTIONS,
    Directory,
    Group,
    RoleEntry,
    can_be_name,
)
from services.hospital_node.adapters.account_tables import (
    AccountRoleRow,
    CustomRoleRow,
    GroupMemberRow,
    GroupRoleRow,
    GroupRow,
)


class RoleStore:
    """Roles and groups as one transaction sees them."""

    def __init__(self, session: Session) -> None:
        self._session = session

    def directory(self) -> Directory:
        """Every role that can be given, with what it allows."""
        own = {row.name: _permissions(row) for row in self._session.scalars(select(CustomRoleRow))}
        return {**own, **BUILT_IN}

    def roles(self) -> list[RoleEntry]:
        """Built-in ones first, then the hospital's own by name."""
        built_in = [
            RoleEntry(role.value, BUILT_IN_DESCRIPTIONS[role], granted, built_in=True)
            for role, granted in BUILT_IN_ROLES.items()
        ]
        rows = self._session.scalars(select(CustomRoleRow).order_by(CustomRoleRow.name))
        return built_in + [
            RoleEntry(row.name, row.description, _permissions(row), built_in=False) for row in rows
        ]

    def save_role(self, role: RoleEntry) -> None:
        """Write a role of the hospital's own, new or changed."""
        names = json.dumps(sorted(role.permissions))
        self._session.merge(CustomRoleRow(name=role.name, description=role.description, permissions=names))

    def remove_role(self, name: str) -> None:
        """Delete a role that nobody has."""
        self._session.execute(delete(CustomRoleRow).where(CustomRoleRow.name == name))

    def holders(self, role: str) -> list[str]:
        """The accounts and groups that have it."""
        accounts = select(AccountRoleRow.account).where(AccountRoleRow.role == role)
        groups = select(GroupRoleRow.group).where(GroupRoleRow.role == role)
        return [*self._session.scalars(accounts), *self._session.scalars(groups)]

    def groups(self) -> list[Group]:
        """By name."""
        rows = self._session.scalars(select(GroupRow).order_by(GroupRow.name)).all()
        return [self._group(row) for row in rows]

    def group(self, name: str) -> Group | None:
        """The group; None if there is none."""
        row = self._session.get(GroupRow, name) if can_be_name(name) else None
        return None if row is None else self._group(row)

    def get_group(self, name: str) -> Group:
        """The group. NotFound if there is none."""
        group = self.group(name)
        if group is None:
            raise NotFound(f"There is no group {name!r}. See the groups with: trefoil group list")
        return group

    def save_group(self, group: Group) -> None:
        """Write a group, new or changed."""
        self._session.merge(GroupRow(name=group.name, description=group.description))
        self._session.flush()
        self._empty(group.name)
        self._session.add_all(GroupRoleRow(group=group.name, role=role) for role in sorted(set(group.roles)))
        self._session.add_all(
            GroupMemberRow(group=group.name, account=member) for member in sorted(set(group.members))
        )
        self._session.flush()

    def remove_group(self, name: str) -> None:
        """Delete a group; its members lose its roles."""
        self._empty(name)
        self._session.execute(delete(GroupRow).where(GroupRow.name == name))

    def _empty(self, name: str) -> None:
        self._session.execute(delete(GroupRoleRow).where(GroupRoleRow.group == name))
        self._session.execute(delete(GroupMemberRow).where(GroupMemberRow.group == name))

    def _group(self, row: GroupRow) -> Group:
        roles = select(GroupRoleRow.role).where(GroupRoleRow.group == row.name).order_by(GroupRoleRow.role)
        members = (
            select(GroupMemberRow.account)
            .where(GroupMemberRow.group == row.name)
            .order_by(GroupMemberRow.account)
        )
        return Group(
            name=row.name,
            description=row.description,
            roles=tuple(self._session.scalars(roles)),
            members=tuple(self._session.scalars(members)),
        )


def _permissions(row: CustomRoleRow) -> frozenset[Permission]:
    """What the role allows. Names that this release does not know (any more) allow nothing."""
    known = {permission.value: permission for permission in Permission}
    return frozenset(known[name] for name in json.loads(row.permissions) if name in known)
