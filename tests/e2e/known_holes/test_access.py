"""The access table against the real coordinator, party 0 and a hospital node: everybody whom it refuses.

`tests/integration/access` runs the whole table, with handlers that only say that they were reached. Here the
handlers are real, so whoever would be let in does not call.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Iterator
from pathlib import Path

import grpc
import pytest

from libs.cli.client.accounts import log_in, log_out
from libs.cli.demo.staff import owners_profile
from libs.core.secret import Secret
from libs.rpc.identity import COORDINATOR, Identity, Kind, party_identity
from libs.rpc.tokens import Role
from tests.e2e.known_holes.conftest import BETA, LET_IN, SCIENTIST, STAFF_ALPHA, STAFF_BETA, Federation
from tests.fakes.bad_tokens import BAD_TOKENS
from tests.integration.access.table import HOSPITAL, ROWS, Row

pytestmark = pytest.mark.timeout(240)

CALLERS = {
    Kind.COORDINATOR: COORDINATOR,
    Kind.PARTY: party_identity(1),
    Kind.HOSPITAL: BETA,
    Kind.CLIENT: SCIENTIST,
}
NO, WHO = grpc.StatusCode.PERMISSION_DENIED, grpc.StatusCode.UNAUTHENTICATED
WHO_AM_I = "/trefoil.hospital.v1.AccountService/WhoAmI"

Case = tuple[Row, str, Identity, str | None, grpc.StatusCode]
"""A call: the row, what is special about it, who calls, with which token, and how it ends."""


async def require_refused(federation: Federation, cases: Iterable[Case], *, at_least: int) -> None:
    """Make every call; each ends as its case says."""
    gate = asyncio.Semaphore(32)

    async def one(case: Case) -> str | None:
        row, what, caller, token, expected = case
        async with gate:
            got = await federation.answer(row.service, row.method, caller, token)
        return None if got is expected else f"{row.service} {row.method} {what}: {got}, not {expected}"

    answers = await asyncio.gather(*(one(case) for case in cases))
    wrong = [answer for answer in answers if answer is not None]
    assert not wrong, "\n".join(wrong[:20])
    assert len(answers) >= at_least


async def test_every_rpc_refuses_every_certificate_and_role_that_its_row_does_not_list(
    federation: Federation,
) -> None:
    def cases() -> Iterator[Case]:
        for row in ROWS:
            for kind, caller in CALLERS.items():
                for role in (role for role in Role if role is not Role.STAFF):
                    if not row.without_token(kind) and (kind, role) not in row.admitted:
                        token = federation.maker.good(row.service, role)
                        yield row, f"{kind.value} as {role.value}", caller, token, NO

    await require_refused(federation, cases(), at_least=1500)


@pytest.mark.parametrize("bad", BAD_TOKENS)
async def test_every_rpc_refuses_a_bad_token_whatever_role_it_claims(
    federation: Federation, bad: str
) -> None:
    def cases() -> Iterator[Case]:
        forged = {
            (service, role): BAD_TOKENS[bad](federation.maker, service, role)
            for service in federation.maker.secrets
            for role in Role
        }
        for row in ROWS:
            for role in Role:
                kind = Kind.HOSPITAL if role is Role.WORKER else Kind.CLIENT
                if not row.without_token(kind):
                    expected = WHO if row.needs_token(kind) else NO
                    token = forged[row.service, role]
                    yield row, f"{bad}, as {role.value}", CALLERS[kind], token, expected

    await require_refused(federation, cases(), at_least=500)


def account_rows() -> list[Row]:
    """What accounts of the hospital may call at all."""
    return [row for row in ROWS if row.service == HOSPITAL and row.permission is not None]


async def test_an_account_that_logged_out_opens_nothing_any_more(federation: Federation) -> None:
    token = await begin_session(federation)
    assert await federation.answer(HOSPITAL, WHO_AM_I, STAFF_ALPHA, token) is LET_IN
    await log_out(second_profile(federation))
    cases = ((row, "logged out", STAFF_ALPHA, token, WHO) for row in account_rows())
    await require_refused(federation, cases, at_least=35)


async def test_an_accounts_token_is_worth_nothing_with_another_certificate(federation: Federation) -> None:
    token = await begin_session(federation)
    cases = ((row, "stolen", STAFF_BETA, token, WHO) for row in account_rows())
    await require_refused(federation, cases, at_least=35)
    assert await federation.answer(HOSPITAL, WHO_AM_I, STAFF_ALPHA, token) is LET_IN


async def test_an_accounts_token_is_worth_nothing_in_the_federation(federation: Federation) -> None:
    token = await begin_session(federation)
    cases = (
        (row, "account of a hospital", STAFF_ALPHA, token, WHO)
        for row in ROWS
        if row.service != HOSPITAL and row.needs_token(Kind.CLIENT)
    )
    await require_refused(federation, cases, at_least=15)


def second_profile(federation: Federation) -> Path:
    """Of alpha's owner, with a login of its own beside the one from claiming the node."""
    owner = owners_profile(federation.cluster, "alpha")
    second = owner.with_name("second.toml")
    second.write_text(owner.read_text("utf-8").replace("owner-session.json", "second-session.json"))
    return second


async def begin_session(federation: Federation) -> str:
    """The access token of a new login of alpha's owner."""
    profile = second_profile(federation)
    password = profile.with_name("owner.password").read_text("utf-8").strip()
    tokens = await log_in(profile, name="owner", password=Secret(password))
    return tokens.access_token
