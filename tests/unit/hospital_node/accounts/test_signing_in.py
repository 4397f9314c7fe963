"""Logins: what is told, what is not, and how often one may be wrong."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import text

from libs.core.errors import PermissionDenied, Unauthenticated
from libs.core.secret import Secret
from services.hospital_node.accounts.attempts import ALLOWED, ALLOWED_FOR_ALL_NAMES
from services.hospital_node.accounts.signing_in import WRONG
from tests.fakes.accounts import ATTIC, DESK, GOOD, OTHER, OWNER, AccountRig, cheap_passwords


async def refused(rig: AccountRig, name: str = OWNER, password: str = OTHER, **options: Any) -> str:
    """The refusal's text."""
    with pytest.raises(Unauthenticated) as error:
        await rig.log_in(name, password, **options)
    return str(error.value)


async def test_every_reason_to_refuse_is_told_in_the_same_words_and_the_trail_says_which(
    rig: AccountRig,
) -> None:
    await rig.claim()
    await rig.invite("ivy")
    await rig.join("dan")
    await rig.as_actor(OWNER, rig.accounts.users.change, name="dan", enabled=False)
    said = [
        await refused(rig, "nobody"),
        await refused(rig, OWNER),
        await refused(rig, "ivy", GOOD),
        await refused(rig, "dan", GOOD),
        await refused(rig, "x" * 1000 + "\n\x00"),
        await refused(rig, password="x" * 10_000),
    ]
    assert set(said) == {WRONG}
    told = [entry for entry in rig.told() if entry.action == "login.refused"]
    assert [entry.details["reason"] for entry in told] == [
        "unknown_name",
        "wrong_password",
        "invited",
        "disabled",
        "unknown_name",
        "wrong_password",
    ]
    assert [entry.object for entry in told] == ["", OWNER, "ivy", "dan", "", OWNER]


async def test_a_hash_is_computed_whatever_is_wrong(rig: AccountRig, monkeypatch: pytest.MonkeyPatch) -> None:
    await rig.claim()
    await rig.invite("ivy")
    hashed: list[str] = []
    verify = rig.passwords._verify
    monkeypatch.setattr(rig.passwords, "_verify", lambda *said: hashed.append(said[1]) or verify(*said))
    for name in ("nobody", OWNER, "ivy"):
        await refused(rig, name)
    for _ in range(ALLOWED):
        await refused(rig)
    parameters = {value.rpartition("$")[0].rpartition("$")[0] for value in hashed}
    assert len(hashed) == 3 + ALLOWED  # the last one was locked
    assert len(parameters) == 1


async def test_ten_wrong_passwords_lock_for_a_minute_and_each_further_one_for_twice_as_long(
    rig: AccountRig,
) -> None:
    await rig.claim()
    for _ in range(ALLOWED):
        await refused(rig)
    assert await refused(rig, password=GOOD) == WRONG
    rig.clock.turn(seconds=59)
    await refused(rig, password=GOOD)
    rig.clock.turn(seconds=1)
    await refused(rig)
    rig.clock.turn(seconds=119)
    await refused(rig, password=GOOD)
    rig.clock.turn(seconds=1)
    await rig.log_in()
    await refused(rig)  # one wrong one after a right one locks nothing
    await rig.log_in()
    locks = [told.details["attempts"] for told in rig.told() if told.action == "login.locked"]
    assert locks == ["10", "11"]


async def test_attempts_at_once_count_before_any_of_them_is_found_wrong(rig: AccountRig) -> None:
    await rig.claim()
    tries = (rig.log_in(password=f"guess number {n}") for n in range(3 * ALLOWED))
    await asyncio.gather(*tries, return_exceptions=True)
    reasons = [told.details["reason"] for told in rig.told() if told.action == "login.refused"]
    assert reasons.count("wrong_password") == ALLOWED
    assert reasons.count("locked") == 2 * ALLOWED


async def test_an_attacker_locks_the_owner_out_for_his_own_machine_only(rig: AccountRig) -> None:
    await rig.claim()
    for _ in range(ALLOWED + 5):
        await refused(rig, client=ATTIC)
    await refused(rig, password=GOOD, client=ATTIC)
    await rig.log_in()


async def test_a_lock_is_never_longer_than_an_hour_and_a_day_forgets_all(rig: AccountRig) -> None:
    await rig.claim()
    for _ in range(ALLOWED + 12):
        await refused(rig)
        rig.clock.turn(hours=1)
    await rig.log_in()
    for _ in range(ALLOWED - 1):
        await refused(rig)
    rig.clock.turn(hours=24)
    for _ in range(ALLOWED - 1):
        await refused(rig)
    await rig.log_in()


async def test_one_machine_that_tries_many_names_is_locked_and_takes_bounded_room(rig: AccountRig) -> None:
    await rig.claim()
    for number in range(ALLOWED_FOR_ALL_NAMES + 10):
        await refused(rig, f"name{number}")
    assert await refused(rig, password=GOOD) == WRONG
    await rig.log_in(client=ATTIC)
    with rig.transactions.engine.connect() as connection:
        rows = connection.execute(text("SELECT count(*) FROM wrong_attempts")).scalar_one()
    assert rows <= ALLOWED_FOR_ALL_NAMES + 2
    rig.clock.turn(hours=25)
    await rig.log_in()
    with rig.transactions.engine.connect() as connection:
        assert connection.execute(text("SELECT count(*) FROM wrong_attempts")).scalar_one() <= 1


async def test_logging_in_to_ones_own_account_does_not_pay_for_guesses_at_others(rig: AccountRig) -> None:
    await rig.claim()
    await rig.join("eve")
    for number in range(ALLOWED_FOR_ALL_NAMES):
        await refused(rig, f"name{number}")
        if number % 10 == 0:
            await rig.log_in("eve")
    await refused(rig, "eve", GOOD)


async def test_an_unknown_name_locks_as_a_known_one_does(rig: AccountRig) -> None:
    await rig.claim()
    for _ in range(ALLOWED + 1):
        await refused(rig, "nobody")
    locks = [told.details["attempts"] for told in rig.told() if told.action == "login.locked"]
    assert locks == ["10"]


async def test_a_hash_with_old_parameters_is_replaced_at_the_next_login(rig: AccountRig) -> None:
    await rig.claim()
    rig.restarted(cheap_passwords(passes=2))
    await refused(rig)
    assert "t=2" not in rig.stored()
    await rig.log_in()
    assert "t=2" in rig.stored()
    await rig.log_in()


async def test_a_password_that_was_changed_meanwhile_does_not_log_in(rig: AccountRig) -> None:
    """Between reading the hash and the end of hashing, a reset took the password away."""
    await rig.claim()
    await rig.join("ben")
    verify = rig.passwords.verify

    async def reset_in_between(password: Secret[str], hashed: str) -> bool:
        right = await verify(password, hashed)
        await rig.as_actor(OWNER, rig.accounts.users.reset, name="ben")
        return right

    rig.passwords.verify = reset_in_between  # type: ignore[method-assign]
    await refused(rig, "ben", GOOD)


async def test_a_wrong_password_said_once_more_counts_as_a_wrong_login(rig: AccountRig) -> None:
    await rig.claim()
    actor = await rig.actor(OWNER)
    for _ in range(ALLOWED):
        with pytest.raises(PermissionDenied, match="wrong"):
            await rig.accounts.signing_in.confirm(actor, Secret(OTHER), DESK)
    await refused(rig, password=GOOD)
    rig.clock.turn(seconds=timedelta(minutes=1).total_seconds())
    await rig.accounts.signing_in.confirm(actor, Secret(GOOD), DESK)


async def test_neither_password_nor_token_is_stored_or_printed(rig: AccountRig) -> None:
    issued = await rig.claim()
    stored = rig.stored()
    for secret in (GOOD, issued.refresh_token.expose(), issued.access_token.expose()):
        assert secret not in stored
        assert secret not in repr(issued)
