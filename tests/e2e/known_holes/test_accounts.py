"""Holes of PyGrid by which one is taken for another, or for more."""

from __future__ import annotations

import grpc
import pytest

from libs.cli.client.accounts import accept_invitation, log_in
from libs.cli.client.session import CALL_TIMEOUT_S, open_session
from libs.cli.demo.staff import owners_profile
from libs.core.errors import PermissionDenied
from libs.core.ids import new_id
from libs.core.secret import Secret
from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2
from tests.e2e.known_holes.conftest import (
    BETA,
    Federation,
    password_of,
    secrets_below,
    translate,
)

pytestmark = pytest.mark.timeout(240)

WHO = grpc.StatusCode.UNAUTHENTICATED
GATEWAY = "/trefoil.coordinator.v1.CoordinatorService/"
ADAMS_PASSWORD = "violet harbour lantern"


async def test_a_workers_token_is_worth_nothing_with_another_hospitals_certificate(
    federation: Federation,
) -> None:
    """PyGrid 628: a worker id is not bound to anything, so any worker can be any other."""
    token = federation.token_of("hospital-alpha", "worker.token")
    party = "/trefoil.party.v1.PartyService/"
    for method in ("PutShares", "GetShares", "SetModelUse", "DescribeModelUse"):
        assert await federation.answer("party-0", party + method, BETA, token) is WHO
    assert await federation.answer("coordinator", GATEWAY + "Attach", BETA, token) is WHO


async def test_an_administrator_neither_resets_nor_changes_the_owner(federation: Federation) -> None:
    """PyGrid: an administrator can reset the owner's password."""
    cluster = federation.cluster
    owners = owners_profile(cluster, "alpha")
    mine = owners.with_name("administrator.toml")
    mine.write_text(owners.read_text("utf-8").replace("owner-session.json", "administrator-session.json"))
    invitation = accounts_pb2.InviteUserRequest(
        request_id=new_id("request"), name="adam", full_name="Adam", roles=["administrator"]
    )
    async with open_session(owners) as owner:
        invited = await owner.accounts.InviteUser(invitation, timeout=CALL_TIMEOUT_S)
    await accept_invitation(mine, code=Secret(invited.invitation.code), password=Secret(ADAMS_PASSWORD))
    disabled = accounts_pb2.ChangeUserRequest.ACTIVITY_DISABLED
    async with open_session(mine) as session:
        accounts = session.accounts
        calls = [
            accounts.ResetUser(accounts_pb2.ResetUserRequest(request_id=new_id("r"), name="owner")),
            accounts.ChangeUser(
                accounts_pb2.ChangeUserRequest(request_id=new_id("r"), name="owner", activity=disabled)
            ),
            accounts.ChangeUser(
                accounts_pb2.ChangeUserRequest(
                    request_id=new_id("r"), name="owner", set_roles=True, roles=["clinician"]
                )
            ),
            accounts.TransferOwnership(
                accounts_pb2.TransferOwnershipRequest(
                    request_id=new_id("r"), to="adam", password=ADAMS_PASSWORD
                )
            ),
        ]
        for call in calls:
            with pytest.raises(PermissionDenied):
                await translate(call)
        users = (await session.accounts.ListUsers(accounts_pb2.ListUsersRequest())).users
    assert {tuple(user.roles) for user in users if user.name == "owner"} == {("owner",)}
    await log_in(owners, name="owner", password=password_of(cluster, "alpha"))


async def test_user_records_hold_neither_keys_nor_passwords(federation: Federation) -> None:
    """PyGrid: user records return private signing keys. What answers can hold is in `test_wire.py`."""
    folder = federation.cluster.folder("hospital-alpha")
    async with open_session(owners_profile(federation.cluster, "alpha")) as owner:
        answers = [
            await owner.accounts.ListUsers(accounts_pb2.ListUsersRequest()),
            await owner.accounts.WhoAmI(accounts_pb2.WhoAmIRequest()),
            await owner.accounts.ListSessions(accounts_pb2.ListSessionsRequest()),
        ]
    told = b"".join(answer.SerializeToString() for answer in answers)
    assert b"owner" in told
    secret = password_of(federation.cluster, "alpha").expose().encode()
    known = {secret, *(word.strip() for word in secrets_below(folder))}
    assert not any(word in told for word in known)
    assert b"argon2" not in told
    assert b"BEGIN" not in told
