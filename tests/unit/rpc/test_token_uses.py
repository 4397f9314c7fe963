"""Tokens that are good for one call: one of many wins, a restart forgets nothing, and no record, no call."""

from __future__ import annotations

import asyncio
import sqlite3
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from libs.core.errors import InvalidInput, Unauthenticated, Unavailable
from libs.rpc.token_checks.claims import Role, TokenClaims
from libs.rpc.token_checks.uses import TokenUses
from libs.rpc.token_settings import TokenKeySettings, token_gate
from tests.fakes.token_services import AUDIENCE, ISSUER, NOON, TurnedClock, claims, ec_key, signed

KEY = ec_key()
CLAIMS = TokenClaims(
    subject="alpha",
    role=Role.WORKER,
    issuer=ISSUER,
    audience=AUDIENCE,
    expires_at=NOON + timedelta(seconds=600),
    token_id="token-1",
)


def rows(file: Path) -> list[str]:
    with sqlite3.connect(file) as connection:
        return [row[0] for row in connection.execute("SELECT token_id FROM token_uses ORDER BY token_id")]


async def test_one_of_a_hundred_uses_at_once_wins_over_two_processes_files(tmp_path: Path) -> None:
    both = [TokenUses(tmp_path / "uses.db", clock=TurnedClock()) for _ in range(2)]
    spent = await asyncio.gather(
        *(both[number % 2].spend(CLAIMS) for number in range(100)), return_exceptions=True
    )
    refused = [error for error in spent if error is not None]
    assert (len(refused), {type(error) for error in refused}) == (99, {Unauthenticated})
    for uses in both:
        uses.close()


async def test_a_restart_does_not_forget_and_ids_are_the_issuers_own(tmp_path: Path) -> None:
    first = TokenUses(tmp_path / "uses.db", clock=TurnedClock())
    await first.spend(CLAIMS)
    first.close()
    again = TokenUses(tmp_path / "uses.db", clock=TurnedClock())
    with pytest.raises(Unauthenticated, match="used before"):
        await again.spend(CLAIMS)
    await again.spend(replace(CLAIMS, issuer="https://elsewhere.example"))
    await again.spend(replace(CLAIMS, token_id="token-2"))
    again.close()


async def test_a_use_is_remembered_as_long_as_its_token_could_be_accepted(tmp_path: Path) -> None:
    clock = TurnedClock()
    uses = TokenUses(tmp_path / "uses.db", clock=clock)
    await uses.spend(CLAIMS)
    for at, kept in [(629, ["at-629", "token-1"]), (630, ["at-629", "at-630"])]:
        clock.seconds = at
        later = replace(CLAIMS, token_id=f"at-{at}", expires_at=NOON + timedelta(hours=1))
        await uses.spend(later)
        assert rows(tmp_path / "uses.db") == kept
    uses.close()


async def test_a_use_that_cannot_be_written_down_is_no_use(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="cannot be opened"):
        TokenUses(tmp_path / "absent" / "uses.db", clock=TurnedClock())
    (tmp_path / "text.db").write_text("this is no database, and says so at some length " * 100)
    with pytest.raises(Unavailable, match="cannot be opened"):
        TokenUses(tmp_path / "text.db", clock=TurnedClock())
    uses = TokenUses(tmp_path / "uses.db", clock=TurnedClock())
    with sqlite3.connect(tmp_path / "uses.db") as connection:
        connection.execute("DROP TABLE token_uses")
    with pytest.raises(Unavailable, match="cannot be written"):
        await uses.spend(CLAIMS)
    uses.close()


async def test_only_tokens_of_an_issuer_that_says_so_are_used_up(tmp_path: Path) -> None:
    (tmp_path / "issuer.pem").write_bytes(KEY.as_pem(private=False))
    entries = [
        TokenKeySettings(issuer=issuer, audience=AUDIENCE, key=tmp_path / "issuer.pem", one_time=one_time)
        for issuer, one_time in ((ISSUER, True), ("https://many.example", False))
    ]
    gate = token_gate([], entries, [], uses=tmp_path / "uses.db", clock=TurnedClock())
    once, often = [await gate.check(signed(KEY, "ES256", claims(iss=entry.issuer))) for entry in entries]
    for _ in range(2):
        await gate.spend(often)
    await gate.spend(once)
    with pytest.raises(Unauthenticated, match="used before"):
        await gate.spend(once)
    await gate.close()
    with pytest.raises(InvalidInput, match="token_uses"):
        token_gate([], entries, [])
