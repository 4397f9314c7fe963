"""What staff may do at a hospital node, and which built-in role may do what."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from types import MappingProxyType

from libs.rpc.token_checks.claims import Role


class Permission(enum.StrEnum):
    """One kind of thing that staff may do. Custom roles are made of these names."""

    NODE_READ = "node.read"
    NODE_MANAGE = "node.manage"
    DATASETS_READ = "datasets.read"
    DATASETS_PUBLISH = "datasets.publish"
    REQUESTS_READ = "requests.read"
    REQUESTS_CREATE = "requests.create"
    REQUESTS_DECIDE = "requests.decide"
    BUDGET_SET = "budget.set"
    STATISTICS_RELEASE = "statistics.release"
    LEDGER_READ = "ledger.read"
    AUDIT_READ = "audit.read"
    USERS_READ = "users.read"
    USERS_MANAGE = "users.manage"
    ROLES_MANAGE = "roles.manage"
    OWNERSHIP = "ownership"
    ACCOUNT = "account"


DESCRIPTIONS: Mapping[Permission, str] = MappingProxyType(
    {
        Permission.NODE_READ: "see what the node is doing",
        Permission.NODE_MANAGE: "join and leave the federation",
        Permission.DATASETS_READ: "see published data sets and their exact counts",
        Permission.DATASETS_PUBLISH: "publish and withdraw data sets",
        Permission.REQUESTS_READ: "read requests, approvals and rules",
        Permission.REQUESTS_CREATE: "ask for access to a data set of this hospital",
        Permission.REQUESTS_DECIDE: "approve, narrow, deny and revoke; write rules",
        Permission.BUDGET_SET: "set a data set's privacy budget",
        Permission.STATISTICS_RELEASE: "release noisy statistics under an approval",
        Permission.LEDGER_READ: "read the privacy ledger",
        Permission.AUDIT_READ: "export the audit trail",
        Permission.USERS_READ: "list accounts, roles and groups",
        Permission.USERS_MANAGE: "invite, change, reset and disable accounts",
        Permission.ROLES_MANAGE: "write custom roles and groups",
        Permission.OWNERSHIP: "hand the node over to another owner",
        Permission.ACCOUNT: "one's own password, second factor and sessions",
    }
)

_EVERYBODY = frozenset({Permission.NODE_READ, Permission.ACCOUNT})

BUILT_IN_ROLES: Mapping[Role, frozenset[Permission]] = MappingProxyType(
    {
        Role.OWNER: frozenset(Permission),
        # Runs accounts and the node, and has no say over data.
        Role.ADMINISTRATOR: _EVERYBODY
        | {
            Permission.NODE_MANAGE,
            Permission.DATASETS_READ,
            Permission.USERS_READ,
            Permission.USERS_MANAGE,
            Permission.ROLES_MANAGE,
        },
        Role.COMPLIANCE_OFFICER: _EVERYBODY
        | {
            Permission.DATASETS_READ,
            Permission.REQUESTS_READ,
            Permission.REQUESTS_DECIDE,
            Permission.BUDGET_SET,
            Permission.LEDGER_READ,
            Permission.AUDIT_READ,
            Permission.USERS_READ,
        },
        Role.SCIENTIST: _EVERYBODY
        | {Permission.DATASETS_READ, Permission.REQUESTS_CREATE, Permission.STATISTICS_RELEASE},
        Role.CLINICIAN: _EVERYBODY,
        Role.AUDITOR: _EVERYBODY
        | {
            Permission.DATASETS_READ,
            Permission.REQUESTS_READ,
            Permission.LEDGER_READ,
            Permission.AUDIT_READ,
            Permission.USERS_READ,
        },
    }
)


def roles_with(permission: Permission) -> frozenset[Role]:
    """The built-in roles that have it."""
    return frozenset(role for role, granted in BUILT_IN_ROLES.items() if permission in granted)
