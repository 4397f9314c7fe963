"""The first owner, and everybody after them, by one-time code."""

from __future__ import annotations

import asyncio
import stat
from typing import Any

import pytest
from structlog.testing import capture_logs

from libs.core.errors import AlreadyExists, FailedPrecondition, InvalidInput, TrefoilError, Unauthenticated
from libs.core.secret import Secret
from libs.rpc.permissions import Permission
from services.hospital_node.accounts.domain import account_name
from services.hospital_node.accounts.invitations import INVITATION_LIFETIME, OWNER_CODE_LIFETIME
from tests.fakes.accounts import ATTIC, DESK, GOOD, OTHER, OWNER, AccountRig


async def test_the_first_start_writes_a_private_code_that_makes_the_owner_once(rig: AccountRig) -> None:
    with capture_logs() as logs:
        await rig.accounts.invitations.ensure_owner_code()
    code = rig.code_file.read_text().strip()
    assert stat.S_IMODE(rig.code_file.stat().st_mode) == 0o600
    assert len(code.replace("-", "")) * 5 >= 128
    assert str(rig.code_file) in str(logs)
    assert code not in str(logs)
    assert code.replace("-", "") not in rig.stored()
    claims = await rig.claims(await rig.claim(code=code))
    assert await rig.accounts.sessions.grants(claims) == frozenset(Permission)
    assert not rig.code_file.exists()
    with pytest.raises(Unauthenticated):
        await rig.claim("second", code=code)
    await rig.accounts.invitations.ensure_owner_code()
    assert not rig.code_file.exists()
    assert [told.action for told in rig.told()] == ["owner_code.made", "node.claimed"]


async def test_of_twenty_claims_at_once_one_wins(rig: AccountRig) -> None:
    await rig.accounts.invitations.ensure_owner_code()
    code = rig.code_file.read_text()
    claims = (rig.claim(f"owner{n}", code=code) for n in range(20))
    results = await asyncio.gather(*claims, return_exceptions=True)
    refused = [result for result in results if isinstance(result, BaseException)]
    assert len(refused) == 19
    assert all(isinstance(error, Unauthenticated) for error in refused)
    assert [told.action for told in rig.told()].count("node.claimed") == 1


async def test_a_code_for_the_owner_is_good_for_a_day(rig: AccountRig) -> None:
    await rig.accounts.invitations.ensure_owner_code()
    rig.clock.turn(seconds=OWNER_CODE_LIFETIME.total_seconds())
    with pytest.raises(Unauthenticated, match="too old"):
        await rig.claim(code=rig.code_file.read_text())
    await rig.claim()


async def test_a_new_code_makes_the_old_one_worthless(rig: AccountRig) -> None:
    await rig.accounts.invitations.ensure_owner_code()
    first = rig.code_file.read_text()
    await rig.accounts.invitations.write_owner_code()
    with pytest.raises(Unauthenticated):
        await rig.claim(code=first)


async def test_an_owner_who_lost_the_password_gets_a_code_from_the_nodes_disk(rig: AccountRig) -> None:
    before = await rig.claim()
    path = await rig.accounts.invitations.write_owner_code()
    await rig.log_in()
    with pytest.raises(Unauthenticated):
        await rig.claim("usurper", code=path.read_text())
    await rig.accept(path.read_text(), password=OTHER)
    assert not await rig.works(before)
    assert not path.exists()
    await rig.log_in(password=OTHER)
    assert await rig.accounts.invitations.owner() == OWNER


async def test_a_password_that_is_not_good_enough_leaves_the_code_good(rig: AccountRig) -> None:
    await rig.accounts.invitations.ensure_owner_code()
    code = rig.code_file.read_text()
    with pytest.raises(InvalidInput, match="12 characters"):
        await rig.accounts.invitations.claim(
            code, name=OWNER, full_name="", password=Secret("short"), client=DESK
        )
    await rig.claim(code=code)


async def test_an_invitation_is_taken_once_and_its_code_is_stored_nowhere(rig: AccountRig) -> None:
    await rig.claim()
    code = await rig.invite("ben", "scientist")
    assert code.replace("-", "") not in rig.stored()
    with pytest.raises(Unauthenticated):
        await rig.log_in("ben")
    issued = await rig.accept(code.lower().replace("-", " "), client=ATTIC)
    assert await rig.works(issued)
    with pytest.raises(Unauthenticated):
        await rig.accept(code, password=OTHER)
    await rig.log_in("ben")
    actions = [told.action for told in rig.told()]
    assert actions[2:] == ["user.invited", "login.refused", "invitation.accepted", "login.accepted"]


async def test_an_invitation_is_too_old_after_three_days(rig: AccountRig) -> None:
    await rig.claim()
    code = await rig.invite("ben")
    rig.clock.turn(seconds=INVITATION_LIFETIME.total_seconds())
    with pytest.raises(Unauthenticated):
        await rig.accept(code)


async def test_of_twenty_who_accept_at_once_one_wins(rig: AccountRig) -> None:
    await rig.claim()
    code = await rig.invite("ben")
    results = await asyncio.gather(*(rig.accept(code) for _ in range(20)), return_exceptions=True)
    assert sum(not isinstance(result, TrefoilError) for result in results) == 1


async def test_a_staff_invitation_does_not_claim_a_node(rig: AccountRig) -> None:
    await rig.claim()
    with pytest.raises(Unauthenticated):
        await rig.claim("ben", code=await rig.invite("ben"))


async def test_a_name_is_used_once_for_all_times(rig: AccountRig) -> None:
    await rig.claim()
    await rig.invite("ben")
    with pytest.raises(AlreadyExists):
        await rig.invite("ben")


@pytest.mark.parametrize("name", ["", "b", "Ben", "ben smith", "1ben", "b" * 64, "bén", "*", "ben\n"])
def test_names_of_another_form_are_refused(name: str) -> None:
    with pytest.raises(InvalidInput, match="lower-case"):
        account_name(name)


async def test_a_claim_and_an_invitation_refuse_such_names(rig: AccountRig) -> None:
    with pytest.raises(InvalidInput, match="lower-case"):
        await rig.claim("Olga Owner")
    await rig.claim()
    with pytest.raises(InvalidInput, match="lower-case"):
        await rig.invite("Ben")


async def test_a_second_owner_cannot_be_claimed_with_a_code_that_was_left_over(rig: AccountRig) -> None:
    """Two codes for one node, as two starts at once could write them."""
    from services.hospital_node.accounts.tokens import code_hash
    from services.hospital_node.adapters.account_store import OWNERLESS, AccountStore

    await rig.claim()

    def left_over(session: Any) -> None:
        AccountStore(session).invite(
            OWNERLESS, code_hash=code_hash("left over"), expires_at=rig.clock.now() + OWNER_CODE_LIFETIME
        )

    await rig.transactions.run(left_over)
    with pytest.raises(FailedPrecondition, match="has an owner"):
        await rig.claim("second", code="left over")
    assert GOOD not in rig.stored()


async def test_a_code_is_worth_nothing_once_its_account_may_do_more(rig: AccountRig) -> None:
    """Else an administrator who kept the code of an account becomes what the owner made of it."""
    await rig.claim()
    by_change = await rig.invite("cora", "auditor")
    await rig.as_actor(OWNER, rig.accounts.users.change, name="cora", roles=["compliance_officer"])
    same = await rig.invite("dora", "auditor")
    await rig.as_actor(OWNER, rig.accounts.users.change, name="dora", roles=["auditor"])
    with pytest.raises(Unauthenticated, match="more rights"):
        await rig.accept(by_change)
    assert (await rig.accept(same)).account == "dora"
    again = await rig.as_actor(OWNER, rig.accounts.users.reset, name="cora")
    assert (await rig.accept(again.code.expose())).account == "cora"
