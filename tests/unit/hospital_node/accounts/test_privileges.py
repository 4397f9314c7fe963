"""Who may make whom what. Nobody makes anybody mightier than they are themselves, and nobody the owner."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from libs.core.errors import FailedPrecondition, InvalidInput, NotFound, PermissionDenied, Unauthenticated
from libs.core.secret import Secret
from libs.rpc.permissions import BUILT_IN_ROLES, Permission
from libs.rpc.token_checks.claims import Role
from services.hospital_node.accounts.domain import BUILT_IN, Actor, require_may_give
from tests.fakes.accounts import DESK, GOOD, OWNER, AccountRig

Attempt = Callable[[AccountRig], Awaitable[Any]]
ADMIN = "ada"


def as_admin(of: str, method: str, **arguments: Any) -> Attempt:
    async def attempt(rig: AccountRig) -> Any:
        return await rig.as_actor(ADMIN, getattr(getattr(rig.accounts, of), method), **arguments)

    return attempt


# What an Administrator could try to get hold of what he lacks: ownership, or a say over data.
ESCALATIONS: dict[str, Attempt] = {
    "make himself owner": as_admin("users", "change", name=ADMIN, roles=["owner"]),
    "make another owner": as_admin("users", "change", name="ben", roles=["owner"]),
    "invite an owner": as_admin("users", "invite", name="new", full_name="", roles=["owner"], groups=[]),
    "a group of owners": as_admin(
        "roles", "save_group", name="chiefs", description="", roles=["owner"], members=[ADMIN]
    ),
    "make himself compliance officer": as_admin(
        "users", "change", name=ADMIN, roles=["administrator", "compliance_officer"]
    ),
    "make another compliance officer": as_admin("users", "change", name="ben", roles=["compliance_officer"]),
    "invite a compliance officer": as_admin(
        "users", "invite", name="new", full_name="", roles=["compliance_officer"], groups=[]
    ),
    "invite into the deciders": as_admin(
        "users", "invite", name="new", full_name="", roles=[], groups=["deciders"]
    ),
    "put himself into the deciders": as_admin("users", "change", name=ADMIN, groups=["deciders"]),
    "add himself to the deciders": as_admin(
        "roles", "save_group", name="deciders", description="", roles=["compliance_officer"], members=[ADMIN]
    ),
    "add the role to his own group": as_admin(
        "roles",
        "save_group",
        name="office",
        description="",
        roles=["administrator", "compliance_officer"],
        members=[ADMIN],
    ),
    "a new role that decides": as_admin(
        "roles", "save_role", name="mighty", description="", permissions=["requests.decide"]
    ),
    "his custom role decides from now on": as_admin(
        "roles", "save_role", name="helper", description="", permissions=["users.read", "requests.decide"]
    ),
    "a role with ownership": as_admin(
        "roles", "save_role", name="mighty", description="", permissions=["ownership"]
    ),
    "take over a compliance officer's account": as_admin("users", "reset", name="cora"),
    "take over a decider's account": as_admin("users", "reset", name="dora"),
    "take over the owner's account": as_admin("users", "reset", name=OWNER),
    "disable the owner": as_admin("users", "change", name=OWNER, enabled=False),
    "demote the owner": as_admin("users", "change", name=OWNER, roles=["auditor"]),
    "regroup the owner": as_admin("users", "change", name=OWNER, groups=[]),
    "hand the node over": as_admin("users", "transfer", to=ADMIN),
}


@pytest.fixture
async def staffed(rig: AccountRig) -> AccountRig:
    """An owner, an administrator, and others who may do more and less than he."""
    await rig.claim()
    save_group = rig.accounts.roles.save_group
    await rig.as_actor(
        OWNER, rig.accounts.roles.save_role, name="helper", description="", permissions=["users.read"]
    )
    await rig.join(ADMIN, "administrator", "helper")
    await rig.join("ben", "scientist")
    await rig.join("cora", "compliance_officer")
    await rig.join("dora")
    for name, role, member in (
        ("deciders", "compliance_officer", "dora"),
        ("office", "administrator", ADMIN),
    ):
        await rig.as_actor(OWNER, save_group, name=name, description="", roles=[role], members=[member])
    return rig


async def test_an_administrator_escalates_in_no_way(staffed: AccountRig) -> None:
    before, told = staffed.stored(), len(staffed.told())
    for name, attempt in ESCALATIONS.items():
        with pytest.raises(PermissionDenied):
            await attempt(staffed)
        assert staffed.stored() == before, name
    assert len(staffed.told()) == told
    assert (await staffed.actor(ADMIN)).permissions == BUILT_IN_ROLES[Role.ADMINISTRATOR]


async def test_what_an_administrator_may_do_he_can(staffed: AccountRig) -> None:
    users, roles = staffed.accounts.users, staffed.accounts.roles
    await staffed.as_actor(ADMIN, users.invite, name="new", full_name="", roles=["administrator"], groups=[])
    await staffed.as_actor(ADMIN, users.change, name="cora", enabled=False)
    await staffed.as_actor(ADMIN, users.change, name="cora", roles=[])
    await staffed.as_actor(ADMIN, roles.save_role, name="helper", description="", permissions=["node.read"])
    await staffed.as_actor(ADMIN, users.reset, name=ADMIN)


async def test_a_scientist_resets_to_nobodys_account_what_he_lacks(staffed: AccountRig) -> None:
    """Scientists ask for access, which administrators do not."""
    with pytest.raises(PermissionDenied):
        await staffed.as_actor(ADMIN, staffed.accounts.users.reset, name="ben")


async def test_even_the_owner_makes_no_second_owner_and_cannot_be_changed_by_himself(
    staffed: AccountRig,
) -> None:
    users = staffed.accounts.users
    for arguments in ({"roles": ["auditor"]}, {"groups": ["office"]}, {"enabled": False}, {}):
        with pytest.raises(PermissionDenied, match="owner"):
            await staffed.as_actor(OWNER, users.change, name=OWNER, **arguments)
    with pytest.raises(PermissionDenied, match="owner"):
        await staffed.as_actor(OWNER, users.reset, name=OWNER)
    with pytest.raises(PermissionDenied, match="one owner"):
        await staffed.as_actor(OWNER, users.change, name="ben", roles=["owner"])


async def test_ownership_is_handed_over_and_leaves_the_old_owner_without_a_say_over_data(
    staffed: AccountRig,
) -> None:
    new = await staffed.log_in("cora")
    await staffed.as_actor(OWNER, staffed.accounts.users.transfer, to="cora")
    assert await staffed.accounts.sessions.grants(await staffed.claims(new)) == frozenset(Permission)
    assert (await staffed.actor(OWNER)).permissions == BUILT_IN_ROLES[Role.ADMINISTRATOR]
    with pytest.raises(PermissionDenied, match="Only the owner"):
        await staffed.as_actor(OWNER, staffed.accounts.users.transfer, to=OWNER)
    assert await staffed.accounts.invitations.owner() == "cora"


async def test_ownership_goes_to_another_active_account_only(staffed: AccountRig) -> None:
    await staffed.invite("ivy")
    for to in ("ivy", OWNER):
        with pytest.raises(FailedPrecondition):
            await staffed.as_actor(OWNER, staffed.accounts.users.transfer, to=to)


async def test_roles_and_groups_count_from_the_next_call_on(staffed: AccountRig) -> None:
    issued, users = await staffed.log_in("ben"), staffed.accounts.users

    async def granted() -> frozenset[Permission]:
        return await staffed.accounts.sessions.grants(await staffed.claims(issued))

    assert await granted() == BUILT_IN_ROLES[Role.SCIENTIST]
    await staffed.as_actor(OWNER, users.change, name="ben", roles=["auditor"])
    assert await granted() == BUILT_IN_ROLES[Role.AUDITOR]
    await staffed.as_actor(OWNER, users.change, name="ben", roles=["helper"])
    assert await granted() == {Permission.USERS_READ}
    save_role = staffed.accounts.roles.save_role
    await staffed.as_actor(OWNER, save_role, name="helper", description="", permissions=["audit.read"])
    assert await granted() == {Permission.AUDIT_READ}
    await staffed.as_actor(OWNER, users.change, name="ben", roles=[], groups=["office"])
    assert await granted() == BUILT_IN_ROLES[Role.ADMINISTRATOR]
    await staffed.as_actor(OWNER, staffed.accounts.roles.remove_group, name="office")
    assert await granted() == frozenset()


async def test_who_is_disabled_in_between_does_nothing_more(staffed: AccountRig) -> None:
    await staffed.as_actor(OWNER, staffed.accounts.users.change, name=ADMIN, enabled=False)
    with pytest.raises(Unauthenticated):
        await staffed.actor(ADMIN)


async def test_nobody_disables_the_account_they_use(staffed: AccountRig) -> None:
    with pytest.raises(FailedPrecondition, match="own account"):
        await staffed.as_actor(ADMIN, staffed.accounts.users.change, name=ADMIN, enabled=False)


async def test_a_reset_takes_password_second_factor_and_sessions_away(staffed: AccountRig) -> None:
    issued = await staffed.log_in("ben")
    invitation = await staffed.as_actor(OWNER, staffed.accounts.users.reset, name="ben")
    assert not await staffed.works(issued)
    with pytest.raises(Unauthenticated):
        await staffed.log_in("ben")
    await staffed.accept(invitation.code.expose())
    await staffed.log_in("ben")


async def test_a_disabled_account_is_enabled_before_it_is_reset(staffed: AccountRig) -> None:
    await staffed.as_actor(OWNER, staffed.accounts.users.change, name="ben", enabled=False)
    with pytest.raises(FailedPrecondition, match="Enable"):
        await staffed.as_actor(OWNER, staffed.accounts.users.reset, name="ben")


async def test_disabling_takes_an_open_invitation_back(staffed: AccountRig) -> None:
    code = await staffed.invite("ivy")
    await staffed.as_actor(OWNER, staffed.accounts.users.change, name="ivy", enabled=False)
    with pytest.raises(Unauthenticated):
        await staffed.accept(code)


async def test_built_in_roles_cannot_be_changed_or_removed(rig: AccountRig) -> None:
    await rig.claim()
    save, remove = rig.accounts.roles.save_role, rig.accounts.roles.remove_role
    for role in Role:
        with pytest.raises(InvalidInput, match="built-in"):
            await rig.as_actor(OWNER, save, name=role.value, description="", permissions=[])
        with pytest.raises(InvalidInput, match="built-in"):
            await rig.as_actor(OWNER, remove, name=role.value)


async def test_a_role_that_somebody_has_cannot_be_removed(staffed: AccountRig) -> None:
    remove = staffed.accounts.roles.remove_role
    with pytest.raises(FailedPrecondition, match=ADMIN):
        await staffed.as_actor(OWNER, remove, name="helper")
    await staffed.as_actor(OWNER, staffed.accounts.users.change, name=ADMIN, roles=["administrator"])
    await staffed.as_actor(OWNER, remove, name="helper")
    with pytest.raises(NotFound):
        await staffed.as_actor(OWNER, remove, name="helper")


async def test_what_is_not_there_cannot_be_given(staffed: AccountRig) -> None:
    for what in ({"roles": ["nobody"]}, {"roles": ["staff"]}, {"roles": ["worker"]}, {"groups": ["nobody"]}):
        with pytest.raises(NotFound):
            await staffed.as_actor(OWNER, staffed.accounts.users.change, name="ben", **what)
    with pytest.raises(NotFound):
        await staffed.as_actor(OWNER, staffed.accounts.users.change, name="nul\x00", roles=[])


async def test_a_role_with_ownership_is_not_made_even_by_the_owner_himself(rig: AccountRig) -> None:
    await rig.claim()
    save = rig.accounts.roles.save_role
    with pytest.raises(PermissionDenied, match="Hand it over"):
        await rig.as_actor(OWNER, save, name="mighty", description="", permissions=["ownership"])


async def test_an_unknown_permission_is_named(rig: AccountRig) -> None:
    await rig.claim()
    with pytest.raises(InvalidInput, match="no permission"):
        await rig.as_actor(
            OWNER,
            rig.accounts.roles.save_role,
            name="mighty",
            description="",
            permissions=["launch.missiles"],
        )


@pytest.mark.parametrize("given", BUILT_IN)
@pytest.mark.parametrize("giver", BUILT_IN)
def test_a_role_is_given_by_those_who_may_do_all_of_it(giver: str, given: str) -> None:
    actor = Actor("someone", "someone", BUILT_IN[giver])
    if BUILT_IN[given] <= BUILT_IN[giver]:
        require_may_give(actor, BUILT_IN[given])
    else:
        with pytest.raises(PermissionDenied):
            require_may_give(actor, BUILT_IN[given])


async def test_every_change_is_in_the_trail(staffed: AccountRig) -> None:
    await staffed.as_actor(OWNER, staffed.accounts.users.change, name="ben", roles=["auditor"])
    await staffed.as_actor(OWNER, staffed.accounts.users.reset, name="ben")
    await staffed.accounts.signing_in.confirm(await staffed.actor(OWNER), Secret(GOOD), DESK)
    await staffed.as_actor(OWNER, staffed.accounts.users.transfer, to="cora")
    last = [(told.action, told.object) for told in staffed.told()][-3:]
    assert last == [("user.changed", "ben"), ("user.reset", "ben"), ("ownership.transferred", "cora")]
    changed = staffed.told()[-3]
    assert changed.details == {"roles": "auditor", "groups": "", "state": "active"}
