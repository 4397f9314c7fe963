"""Sessions: refreshed once per token, ended at once, bound to a certificate."""

from __future__ import annotations

import asyncio

import pytest

from libs.core.errors import NotFound, PermissionDenied, Unauthenticated
from libs.core.secret import Secret
from services.hospital_node.accounts.sessions import IDLE, LONGEST, MOST_PER_ACCOUNT
from services.hospital_node.accounts.tokens import Client, Issued
from tests.fakes.accounts import ATTIC, DESK, GOOD, OTHER, OWNER, AccountRig


async def refresh(rig: AccountRig, issued: Issued, client: Client = DESK) -> Issued:
    return await rig.accounts.sessions.refresh(issued.refresh_token.expose(), client)


async def test_each_refresh_gives_the_next_pair_of_the_same_session(rig: AccountRig) -> None:
    first = await rig.claim()
    second = await refresh(rig, first)
    third = await refresh(rig, second)
    assert first.session_id == third.session_id
    assert len({one.refresh_token.expose() for one in (first, second, third)}) == 3
    assert await rig.works(third)


async def test_a_refresh_token_that_comes_a_second_time_ends_its_session(rig: AccountRig) -> None:
    first = await rig.claim()
    second = await refresh(rig, first)
    other = await rig.log_in()
    with pytest.raises(Unauthenticated):
        await refresh(rig, first)
    with pytest.raises(Unauthenticated):
        await refresh(rig, second)
    assert not await rig.works(second)
    assert await rig.works(other)
    [stolen] = [told for told in rig.told() if told.action == "session.stolen"]
    assert (stolen.object, stolen.details["reason"]) == (OWNER, "reused")


async def test_of_twenty_refreshes_at_once_none_leaves_two_pairs(rig: AccountRig) -> None:
    first = await rig.claim()
    results = await asyncio.gather(*(refresh(rig, first) for _ in range(20)), return_exceptions=True)
    assert sum(isinstance(result, Issued) for result in results) == 1
    assert not await rig.works(first)


async def test_a_refresh_token_from_another_certificate_ends_its_session(rig: AccountRig) -> None:
    issued = await rig.claim()
    with pytest.raises(Unauthenticated):
        await refresh(rig, issued, ATTIC)
    assert not await rig.works(issued)
    assert rig.told()[-1].details["reason"] == "other_certificate"


async def test_made_up_refresh_tokens_end_nothing(rig: AccountRig) -> None:
    issued = await rig.claim()
    for token in ("", "trefoil-refresh-made-up", "x" * 5000, "\x00"):
        with pytest.raises(Unauthenticated):
            await rig.accounts.sessions.refresh(token, DESK)
    assert await rig.works(issued)


async def test_a_session_ends_when_nobody_uses_it(rig: AccountRig) -> None:
    first = await rig.claim()
    rig.clock.turn(seconds=IDLE.total_seconds() - 1)
    second = await refresh(rig, first)
    rig.clock.turn(seconds=IDLE.total_seconds())
    with pytest.raises(Unauthenticated):
        await refresh(rig, second)


async def test_a_session_ends_after_its_longest_time_whatever_is_done(rig: AccountRig) -> None:
    issued = await rig.claim()
    for _ in range(int(LONGEST / IDLE * 2) - 1):
        rig.clock.turn(seconds=IDLE.total_seconds() / 2)
        issued = await refresh(rig, issued)
    assert issued.refresh_expires_at < rig.clock.now() + IDLE
    rig.clock.turn(seconds=IDLE.total_seconds() / 2)
    with pytest.raises(Unauthenticated):
        await refresh(rig, issued)


async def test_an_access_token_is_good_for_ten_minutes(rig: AccountRig) -> None:
    issued = await rig.claim()
    rig.clock.turn(minutes=10, seconds=29)  # 30 s for clocks that differ
    assert await rig.works(issued)
    rig.clock.turn(seconds=1)
    with pytest.raises(Unauthenticated, match="expired"):
        await rig.node.tokens.check(issued.access_token.expose())


async def test_claims_that_are_not_of_the_session_open_nothing(rig: AccountRig) -> None:
    issued = await rig.claim()
    await rig.join("ben")
    for changed in (
        {"issuer": "hospital-alpha"},
        {"subject": "ben"},
        {"certificate": "x" * 43},
        {"token_id": "session-0123.1"},
        {"token_id": ""},
    ):
        with pytest.raises(Unauthenticated):
            await rig.accounts.sessions.grants(await rig.claims(issued, **changed))


async def test_an_ended_session_is_over_for_calls_and_refreshes(rig: AccountRig) -> None:
    issued, other = await rig.claim(), await rig.log_in()
    await rig.accounts.sessions.end(await rig.actor(OWNER), issued.session_id)
    assert not await rig.works(issued)
    assert await rig.works(other)
    with pytest.raises(Unauthenticated):
        await refresh(rig, issued)
    assert (rig.told()[-1].action, rig.told()[-1].details["session"]) == ("session.ended", issued.session_id)


async def test_sessions_of_others_are_ended_by_who_manages_users_and_those_of_the_owner_by_nobody(
    rig: AccountRig,
) -> None:
    owners = await rig.claim()
    admins, bens = await rig.join("ada", "administrator"), await rig.join("ben", "scientist")
    sessions = rig.accounts.sessions
    for session_id in (admins.session_id, owners.session_id):
        with pytest.raises(NotFound):
            await sessions.end(await rig.actor("ben"), session_id)
    with pytest.raises(PermissionDenied):
        await sessions.listed(await rig.actor("ben"), "ada")
    with pytest.raises(PermissionDenied, match="owner"):
        await sessions.end(await rig.actor("ada"), owners.session_id)
    [listed] = await sessions.listed(await rig.actor("ada"), "ben")
    assert (listed.session_id, listed.client) == (bens.session_id, DESK.identity)
    await sessions.end(await rig.actor("ada"), bens.session_id)
    assert not await rig.works(bens)


async def test_disabling_ends_every_session_and_enabling_brings_none_back(rig: AccountRig) -> None:
    await rig.claim()
    issued = await rig.join("ben")
    await rig.as_actor(OWNER, rig.accounts.users.change, name="ben", enabled=False)
    assert not await rig.works(issued)
    with pytest.raises(Unauthenticated):
        await refresh(rig, issued)
    await rig.as_actor(OWNER, rig.accounts.users.change, name="ben", enabled=True)
    assert not await rig.works(issued)
    await rig.log_in("ben")


async def test_another_password_ends_all_other_sessions(rig: AccountRig) -> None:
    here, there = await rig.claim(), await rig.log_in(client=ATTIC)
    await rig.accounts.own_account.change_password(
        await rig.actor(OWNER), old=Secret(GOOD), new=Secret(OTHER), client=DESK, session_id=here.session_id
    )
    assert (await rig.works(here), await rig.works(there)) == (True, False)
    await rig.log_in(password=OTHER)


async def test_one_account_has_a_bounded_number_of_sessions(rig: AccountRig) -> None:
    first = await rig.claim()
    rig.clock.turn(seconds=1)
    for _ in range(MOST_PER_ACCOUNT):
        latest = await rig.log_in()
    assert len(await rig.accounts.sessions.listed(await rig.actor(OWNER), "")) == MOST_PER_ACCOUNT
    assert (await rig.works(first), await rig.works(latest)) == (False, True)
    [ended] = [told for told in rig.told() if told.action == "session.ended"]
    assert ended.details == {"session": first.session_id, "reason": "too_many"}
