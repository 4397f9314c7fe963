"""Accounts as a client with a certificate sees them."""

from __future__ import annotations

import sqlite3
from typing import Any

import grpc
import jwt
import pyotp
import pytest

from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2 as pb
from libs.rpc.permissions import BUILT_IN_ROLES, Permission
from libs.rpc.tokens import Role
from tests.fakes.account_server import ATTIC, AccountServer
from tests.fakes.accounts import GOOD, OTHER, OWNER
from tests.fakes.rpc_rig import code_of


async def refused(call: Any) -> str:
    """The code of a call that fails."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await call
    return code_of(failure.value)


async def test_from_the_code_on_disk_to_a_colleague_who_changes_role(server: AccountServer) -> None:
    olga = await server.stub((await server.claim()).access_token)
    me = await olga.WhoAmI(pb.WhoAmIRequest())
    assert (me.user.name, list(me.user.roles)) == (OWNER, ["owner"])
    assert set(me.permissions) == set(Permission)
    ben = await server.stub((await server.join(olga, "ben", "scientist")).access_token)
    assert await refused(ben.ListUsers(pb.ListUsersRequest())) == "permission_denied"
    await olga.ChangeUser(pb.ChangeUserRequest(name="ben", set_roles=True, roles=["auditor"]))
    listed = await ben.ListUsers(pb.ListUsersRequest())
    assert [user.name for user in listed.users] == ["ben", OWNER]
    await olga.ChangeUser(pb.ChangeUserRequest(name="ben", activity=pb.ChangeUserRequest.ACTIVITY_DISABLED))
    assert await refused(ben.WhoAmI(pb.WhoAmIRequest())) == "unauthenticated"


async def test_a_token_works_over_the_certificate_of_its_login_only(server: AccountServer) -> None:
    tokens = await server.claim()
    stolen = await server.stub(tokens.access_token, client=ATTIC)
    assert await refused(stolen.WhoAmI(pb.WhoAmIRequest())) == "unauthenticated"
    there = await server.log_in(OWNER, GOOD, client=ATTIC)
    await (await server.stub(there.access_token, client=ATTIC)).WhoAmI(pb.WhoAmIRequest())
    refresh = pb.RefreshSessionRequest(refresh_token=there.refresh_token)
    assert await refused((await server.stub()).RefreshSession(refresh)) == "unauthenticated"


async def test_the_end_of_a_session_is_the_end_of_its_tokens(server: AccountServer) -> None:
    first, second = await server.claim(), await server.log_in(OWNER, GOOD)
    one, two = await server.stub(first.access_token), await server.stub(second.access_token)
    sessions = (await one.ListSessions(pb.ListSessionsRequest())).sessions
    assert {session.session_id: session.current for session in sessions} == {
        first.session_id: True,
        second.session_id: False,
    }
    await two.EndSession(pb.EndSessionRequest(session_id=first.session_id))
    assert await refused(one.WhoAmI(pb.WhoAmIRequest())) == "unauthenticated"
    await two.LogOut(pb.LogOutRequest())
    assert await refused(two.WhoAmI(pb.WhoAmIRequest())) == "unauthenticated"
    tokenless = await server.stub()
    for tokens in (first, second):
        refresh = pb.RefreshSessionRequest(refresh_token=tokens.refresh_token)
        assert await refused(tokenless.RefreshSession(refresh)) == "unauthenticated"


async def test_tokens_of_the_hospitals_issuer_work_as_before_and_make_nobody_staff(
    server: AccountServer,
) -> None:
    await server.claim()
    external = await server.stub(server.external(Role.OWNER, subject="it department"))
    me = await external.WhoAmI(pb.WhoAmIRequest())
    assert (me.user.name, set(me.permissions)) == ("it department", set(Permission))
    await external.InviteUser(pb.InviteUserRequest(name="ben", roles=["compliance_officer"]))
    change = pb.ChangePasswordRequest(old_password=GOOD, new_password=OTHER)
    assert await refused(external.ChangePassword(change)) == "failed_precondition"
    take_over = pb.TransferOwnershipRequest(to="ben", password=GOOD)
    assert await refused(external.TransferOwnership(take_over)) == "failed_precondition"
    staff = await server.stub(server.external(Role.STAFF))
    assert await refused(staff.WhoAmI(pb.WhoAmIRequest())) == "unauthenticated"


async def test_the_nodes_access_tokens_are_signed_with_its_own_key_and_say_who_may_carry_them(
    server: AccountServer,
) -> None:
    tokens = await server.claim()
    header = jwt.get_unverified_header(tokens.access_token)
    said = jwt.decode(tokens.access_token, options={"verify_signature": False})
    assert header["alg"] == "EdDSA"
    assert (said["iss"], said["aud"], said["role"], said["sid"]) == (
        "hospital-alpha-accounts",
        "hospital-alpha",
        "staff",
        tokens.session_id,
    )
    assert said["exp"] - said["iat"] == 600
    assert set(said["cnf"]) == {"x5t#S256"}
    for forged in (
        jwt.encode(said, "x" * 32, algorithm="HS256"),
        jwt.encode(said, None, algorithm="none"),
        tokens.access_token[:-8] + "AAAAAAAA",
    ):
        stub = await server.stub(forged)
        assert await refused(stub.WhoAmI(pb.WhoAmIRequest())) == "unauthenticated"


async def test_a_retried_invitation_is_one_account_and_tells_its_code_once(server: AccountServer) -> None:
    olga = await server.stub((await server.claim()).access_token)
    request = pb.InviteUserRequest(request_id="invite-ben-1", name="ben")
    first, again = await olga.InviteUser(request), await olga.InviteUser(request)
    assert (first.invitation.code != "", again.invitation.code) == (True, "")
    assert first.user == again.user
    other = pb.InviteUserRequest(request_id="invite-ben-1", name="carla")
    assert await refused(olga.InviteUser(other)) == "failed_precondition"


async def test_ownership_is_handed_over_with_the_owners_password(server: AccountServer) -> None:
    olga = await server.stub((await server.claim()).access_token)
    ben = await server.stub((await server.join(olga, "ben", "scientist")).access_token)
    wrong = pb.TransferOwnershipRequest(to="ben", password=OTHER)
    assert await refused(olga.TransferOwnership(wrong)) == "permission_denied"
    assert await refused(ben.TransferOwnership(wrong)) == "permission_denied"
    await olga.TransferOwnership(pb.TransferOwnershipRequest(to="ben", password=GOOD))
    assert set((await ben.WhoAmI(pb.WhoAmIRequest())).permissions) == set(Permission)
    left = set((await olga.WhoAmI(pb.WhoAmIRequest())).permissions)
    assert left == BUILT_IN_ROLES[Role.ADMINISTRATOR]


async def test_a_second_factor_over_the_wire(server: AccountServer) -> None:
    olga = await server.stub((await server.claim()).access_token)
    begun = await olga.BeginSecondFactor(pb.BeginSecondFactorRequest(password=GOOD))
    app = pyotp.parse_uri(begun.provisioning_uri)
    assert isinstance(app, pyotp.TOTP)
    await olga.ConfirmSecondFactor(pb.ConfirmSecondFactorRequest(code=app.now()))
    tokenless = await server.stub()
    used = pb.LogInRequest(name=OWNER, password=GOOD, second_factor=app.now())
    assert await refused(tokenless.LogIn(used)) == "unauthenticated"
    assert (await olga.WhoAmI(pb.WhoAmIRequest())).user.second_factor


async def test_lists_come_in_pages(server: AccountServer) -> None:
    olga = await server.stub((await server.claim()).access_token)
    for number in range(5):
        await olga.InviteUser(pb.InviteUserRequest(name=f"user{number}"))
    names, token = [], ""
    while True:
        page = await olga.ListUsers(pb.ListUsersRequest(page_size=2, page_token=token))
        names += [user.name for user in page.users]
        token = page.next_page_token
        if not token:
            break
    assert names == [OWNER, *(f"user{number}" for number in range(5))]
    assert await refused(olga.ListUsers(pb.ListUsersRequest(page_size=1001))) == "invalid_input"
    assert await refused(olga.ListUsers(pb.ListUsersRequest(page_token="\x00"))) == "invalid_input"


async def test_what_was_done_is_told_with_the_id_of_the_call(server: AccountServer) -> None:
    olga = await server.stub((await server.claim()).access_token)
    await olga.InviteUser(pb.InviteUserRequest(name="ben"))
    with sqlite3.connect(server.folder / "node.db") as database:
        query = "SELECT actor, object, request_id FROM audit_entries WHERE action = 'user.invited'"
        [(actor, subject, request_id)] = database.execute(query).fetchall()
    assert (actor, subject) == ("spiffe://trefoil.local/client/desk (olga)", "ben")
    assert request_id.startswith("request-")
