"""A second factor: confirmed, good once, sealed, removed with password and code only."""

from __future__ import annotations

import pyotp
import pytest

from libs.core.errors import FailedPrecondition, PermissionDenied, Unauthenticated
from libs.core.secret import Secret
from services.hospital_node.accounts.attempts import ALLOWED
from services.hospital_node.accounts.second_factor import STEP_S, SecondFactors
from tests.fakes.accounts import DESK, GOOD, OTHER, OWNER, AccountRig, HandClock


class App:
    """An authenticator app, from the URI alone."""

    def __init__(self, uri: str, rig: AccountRig) -> None:
        totp = pyotp.parse_uri(uri)
        assert isinstance(totp, pyotp.TOTP)
        self.totp, self._rig = totp, rig

    def code(self, *, steps: int = 0) -> str:
        return self.totp.at(self._rig.clock.now(), counter_offset=steps)


async def begun(rig: AccountRig) -> App:
    uri = await rig.accounts.own_account.begin_second_factor(await rig.actor(OWNER), Secret(GOOD), DESK)
    return App(uri.expose(), rig)


@pytest.fixture
async def app(rig: AccountRig) -> App:
    """The owner's, confirmed, and its code used up."""
    await rig.claim()
    app = await begun(rig)
    await rig.accounts.own_account.confirm_second_factor(await rig.actor(OWNER), app.code())
    rig.clock.turn(seconds=10 * STEP_S)
    return app


async def test_it_counts_once_it_is_confirmed(rig: AccountRig) -> None:
    await rig.claim()
    app = await begun(rig)
    await rig.log_in()
    with pytest.raises(PermissionDenied, match="code is wrong"):
        await rig.accounts.own_account.confirm_second_factor(await rig.actor(OWNER), "000000")
    await rig.log_in()
    await rig.accounts.own_account.confirm_second_factor(await rig.actor(OWNER), app.code())
    with pytest.raises(Unauthenticated):
        await rig.log_in()
    assert rig.told()[-1].details["reason"] == "wrong_code"


async def test_a_code_is_good_for_one_login(rig: AccountRig, app: App) -> None:
    code = app.code()
    await rig.log_in(code=code)
    with pytest.raises(Unauthenticated):
        await rig.log_in(code=code)
    rig.clock.turn(seconds=STEP_S)
    await rig.log_in(code=app.code())


async def test_an_earlier_code_is_worth_nothing_after_a_later_one(rig: AccountRig, app: App) -> None:
    await rig.log_in(code=app.code())
    with pytest.raises(Unauthenticated):
        await rig.log_in(code=app.code(steps=-1))


async def test_clocks_may_differ_by_one_step(rig: AccountRig, app: App) -> None:
    for steps in (-2, 2):
        with pytest.raises(Unauthenticated):
            await rig.log_in(code=app.code(steps=steps))
    await rig.log_in(code=app.code(steps=-1))
    await rig.log_in(code=app.code(steps=1))


async def test_wrong_codes_lock_as_wrong_passwords_do(rig: AccountRig, app: App) -> None:
    wrong = "000000" if app.code() != "000000" else "000001"
    for code in [wrong, "", "12345", "1234567", "１２３４５６", "abcdef"] * 2:
        with pytest.raises(Unauthenticated):
            await rig.log_in(code=code)
    with pytest.raises(Unauthenticated):
        await rig.log_in(code=app.code())
    rig.clock.turn(hours=1)
    await rig.log_in(code=app.code())


async def test_removal_needs_password_and_code_and_guesses_are_counted(rig: AccountRig, app: App) -> None:
    own, actor = rig.accounts.own_account, await rig.actor(OWNER)
    with pytest.raises(PermissionDenied):
        await own.remove_second_factor(actor, password=Secret(OTHER), code=app.code(), client=DESK)
    for _ in range(ALLOWED - 1):
        with pytest.raises(PermissionDenied):
            await own.remove_second_factor(actor, password=Secret(GOOD), code="no", client=DESK)
    with pytest.raises(PermissionDenied):
        await own.remove_second_factor(actor, password=Secret(GOOD), code=app.code(), client=DESK)
    rig.clock.turn(hours=1)
    await own.remove_second_factor(actor, password=Secret(GOOD), code=app.code(), client=DESK)
    await rig.log_in()
    assert "second_factor.removed" in [told.action for told in rig.told()]


async def test_a_second_one_does_not_replace_the_first(rig: AccountRig, app: App) -> None:
    with pytest.raises(FailedPrecondition, match="Remove it first"):
        await begun(rig)


async def test_none_is_confirmed_or_removed_where_there_is_none(rig: AccountRig) -> None:
    await rig.claim()
    own, actor = rig.accounts.own_account, await rig.actor(OWNER)
    with pytest.raises(FailedPrecondition):
        await own.confirm_second_factor(actor, "000000")
    with pytest.raises(FailedPrecondition):
        await own.remove_second_factor(actor, password=Secret(GOOD), code="", client=DESK)


async def test_its_secret_is_sealed_in_the_database(rig: AccountRig, app: App) -> None:
    stored = rig.stored()
    assert app.totp.secret not in stored
    assert app.totp.byte_secret().hex() not in stored


def test_a_sealed_secret_is_bound_to_its_account_and_its_key() -> None:
    factors = SecondFactors(hospital="alpha", key=Secret(bytes(32)))
    sealed, _ = factors.new("ben")
    others = SecondFactors(hospital="alpha", key=Secret(bytes([1]) * 32))
    for opener, account in ((factors, "eve"), (others, "ben")):
        with pytest.raises(FailedPrecondition, match=r"account\.key"):
            opener.accepted_step(sealed, account, "000000", after_step=0, now=HandClock().now())
