"""Tokens that were taken back: from the next call on, and nobody gets in while that cannot be told."""

from __future__ import annotations

import json
import os
import stat
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime, timedelta
from pathlib import Path

import pytest
from structlog.testing import capture_logs
from typer.testing import CliRunner

from libs.cli.keys import app
from libs.core.errors import InvalidInput, Unauthenticated, Unavailable
from libs.rpc.dev_ca import create_keys, issuing_secret
from libs.rpc.revoke import revoke_subject, revoke_token
from libs.rpc.token_checks.claims import Expected, accepted
from libs.rpc.token_checks.gate import TokenGate
from libs.rpc.token_checks.revocations import MAX_FILE_BYTES, parse_revocations
from libs.rpc.token_settings import TokenKeySettings, token_gate
from libs.rpc.tokens import TokenVerifier
from tests.fakes.token_services import AUDIENCE, ISSUER, NOON, TurnedClock, claims, ec_key, signed

KEY = ec_key()
NONE = "version = 1\n"


@pytest.fixture
def file(tmp_path: Path) -> Path:
    made = tmp_path / "revoked.toml"
    made.write_text(NONE)
    return made


def gate(file: Path) -> TokenGate:
    (file.parent / "issuer.pem").write_bytes(KEY.as_pem(private=False))
    entry = TokenKeySettings(issuer=ISSUER, audience=AUDIENCE, key=file.parent / "issuer.pem")
    return token_gate([], [entry], [], revocations=file, clock=TurnedClock())


async def refuses(checked: TokenGate, **changed: object) -> bool:
    try:
        await checked.check(signed(KEY, "ES256", claims(**changed)))
    except Unauthenticated as error:
        return "taken back" in str(error)
    return False


def write(file: Path, text: str) -> None:
    if file.is_dir():
        file.rmdir()
    file.unlink(missing_ok=True)
    file.write_text(text)


def write_in_place(file: Path, text: str) -> None:
    """With the times of before, as far as anybody can set them."""
    times = file.stat()
    file.write_text(text)
    os.utime(file, ns=(times.st_atime_ns, times.st_mtime_ns))


async def test_a_revoked_token_is_refused_from_the_next_call_on_and_no_other(file: Path) -> None:
    checked = gate(file)
    assert not await refuses(checked)
    assert revoke_token(file, issuer=ISSUER, token_id="token-1")
    assert await refuses(checked)
    assert not await refuses(checked, jti="token-2")
    revoke_token(file, issuer="https://elsewhere.example", token_id="token-2")
    assert not await refuses(checked, jti="token-2")
    write(file, NONE)
    assert not await refuses(checked)


async def test_everything_a_subject_had_by_a_moment_is_refused_and_what_came_later_is_not(file: Path) -> None:
    checked = gate(file)
    revoke_subject(file, issuer=ISSUER, subject="dana", issued_before=NOON)
    at = int(NOON.timestamp())
    assert await refuses(checked, iat=at - 1)
    assert not await refuses(checked, iat=at)
    assert not await refuses(checked, iat=at - 1, sub="erin")
    assert not revoke_subject(file, issuer=ISSUER, subject="dana", issued_before=NOON - timedelta(hours=1))
    assert revoke_subject(file, issuer=ISSUER, subject="dana", issued_before=NOON + timedelta(seconds=1))
    assert await refuses(checked, iat=at)


def test_a_listed_subject_whose_token_does_not_say_when_it_was_issued_is_refused() -> None:
    said = accepted(claims(iat=None), Expected(ISSUER, AUDIENCE), now=NOON, needs_issue_time=False)
    revoked = parse_revocations(
        NONE + f'[[revoked]]\nissuer = "{ISSUER}"\nsubject = "dana"\nissued_before = 2001-01-01T00:00:00Z'
    )
    with pytest.raises(Unauthenticated, match="taken back"):
        revoked.require_valid(said)


ENTRY = f'[[revoked]]\nissuer = "{ISSUER}"\n'
SPOIL: dict[str, Callable[[Path], object]] = {
    "missing": Path.unlink,
    "empty": lambda file: file.write_text(""),
    "not TOML": lambda file: file.write_text("version = "),
    "not text": lambda file: file.write_bytes(b"\xff"),
    "another version": lambda file: file.write_text("version = 2"),
    "an unknown key": lambda file: file.write_text(NONE + "tokens = []"),
    "no list": lambda file: file.write_text(NONE + 'revoked = "token-1"'),
    "a number": lambda file: file.write_text(NONE + "revoked = 3"),
    "no id": lambda file: file.write_text(NONE + ENTRY),
    "a misspelt key": lambda file: file.write_text(NONE + ENTRY + 'token = "token-2"'),
    "a key too many": lambda file: file.write_text(NONE + ENTRY + 'token_id = "token-2"\nsubject = "dana"'),
    "no time": lambda file: file.write_text(NONE + ENTRY + 'subject = "erin"'),
    "no offset": lambda file: file.write_text(
        NONE + ENTRY + 'subject = "erin"\nissued_before = 2026-11-24T12:00:00'
    ),
    "too large": lambda file: file.write_text(NONE + "#" * MAX_FILE_BYTES),
    "everybody's": lambda file: file.chmod(0o646),
    "a folder": lambda file: (file.unlink(), file.mkdir()),
}


@pytest.mark.parametrize("spoil", SPOIL.values(), ids=SPOIL)
async def test_a_file_that_cannot_be_understood_lets_nobody_in_until_it_can(
    file: Path, spoil: Callable[[Path], object]
) -> None:
    checked = gate(file)
    assert not await refuses(checked)
    spoil(file)
    with capture_logs() as logs:
        for _ in range(2):
            with pytest.raises(Unavailable, match="taken back"):
                await refuses(checked)
    assert [entry["event"] for entry in logs] == ["token_revocations_unreadable"]
    with pytest.raises(InvalidInput, match=r"cannot be used.*version = 1"):
        gate(file)
    write(file, NONE)
    assert not await refuses(checked)


async def test_a_file_that_did_not_change_is_not_read_again(file: Path) -> None:
    checked = gate(file)
    with capture_logs() as logs:
        for _ in range(3):
            await refuses(checked)
        assert logs == []
        write_in_place(file, NONE.replace("\n", " "))  # as long as before
        await refuses(checked)
    assert [entry["event"] for entry in logs] == ["token_revocations_read"]


def test_many_who_write_at_once_lose_nothing_and_leave_nothing(tmp_path: Path) -> None:
    file = tmp_path / "revoked.toml"
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: revoke_token(file, issuer=ISSUER, token_id=f"token-{n}"), range(40)))
    assert len(parse_revocations(file.read_text()).tokens) == 40
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    assert [path.name for path in tmp_path.iterdir()] == ["revoked.toml"]


def test_names_that_could_end_a_text_stay_in_it(tmp_path: Path) -> None:
    file = tmp_path / "revoked.toml"
    name = 'd"\n[[revoked]]\nissuer = \\ \x7f\x00\t é 🩻'
    revoke_token(file, issuer=ISSUER, token_id=name)
    revoke_subject(file, issuer=ISSUER, subject=name, issued_before=NOON)
    revoked = parse_revocations(file.read_text())
    assert (revoked.tokens, dict(revoked.subjects)) == ({(ISSUER, name)}, {(ISSUER, name): NOON})


def test_a_file_that_is_not_understood_or_cannot_be_replaced_stays_as_it_is(file: Path) -> None:
    file.write_text("version = 2\n")
    with pytest.raises(InvalidInput, match="not a file of revocations"):
        revoke_token(file, issuer=ISSUER, token_id="token-1")
    assert file.read_text() == "version = 2\n"
    with pytest.raises(InvalidInput, match="cannot be written"):
        revoke_token(file.parent / "absent" / "revoked.toml", issuer=ISSUER, token_id="token-1")


# ---------------------------------------------------------------- the command line


def keys(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return str(result.output)


def test_the_command_line_takes_back_by_id_by_file_and_by_subject(tmp_path: Path) -> None:
    folder = tmp_path / "keys"
    create_keys(folder, hospitals=["alpha"], clients=[])
    made = ["token", str(folder), "--issuer", "federation", "--role", "worker"]
    first = json.loads(keys(*made, "--subject", "alpha", "--json"))
    about = json.loads(keys(*made, "--subject", "beta", "--json", "--out", str(tmp_path / "b.token")))
    assert set(first) == {"token", "token_id", "expires_at"}
    assert set(about) == {"token_id", "expires_at"}
    verifier = TokenVerifier([issuing_secret(folder, "federation")])
    claims = [verifier.verify(text) for text in (first["token"], (tmp_path / "b.token").read_text())]
    assert [said.token_id for said in claims] == [first["token_id"], about["token_id"]]
    assert datetime.fromisoformat(about["expires_at"]) == claims[1].expires_at

    file = folder / "federation" / "revoked.toml"
    taken = ["revoke", str(folder), "--issuer", "federation"]
    assert keys(*taken, "--token-id", first["token_id"]) == f"Written to {file}.\n"
    assert keys(*taken, "--token-id", first["token_id"]) == f"Already in {file}.\n"
    keys(*taken, "--token", str(tmp_path / "b.token"))
    revoked = parse_revocations(file.read_text())
    assert revoked.tokens == {("trefoil-federation", said.token_id) for said in claims}
    keys(*taken, "--subject", "gamma", "--out", str(tmp_path / "other.toml"))
    fresh = verifier.verify(keys(*made, "--subject", "gamma").strip())
    assert fresh.issued_at is not None
    with pytest.raises(Unauthenticated):  # made within the second in which the subject was revoked
        parse_revocations((tmp_path / "other.toml").read_text()).require_valid(fresh)


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "Name one of"),
        (["--token-id", "x", "--subject", "y"], "Name one of"),
        (["--token", "absent.token"], "cannot be read"),
        (["--token", "other.token"], "another issuer"),
        (["--token", "no.token"], "not a JSON Web Token"),
        (["--token", "bare.token"], "no id"),
    ],
)
def test_what_cannot_be_taken_back_is_refused_in_plain_words(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], problem: str
) -> None:
    monkeypatch.chdir(tmp_path)
    create_keys(tmp_path / "keys", hospitals=[], clients=[])
    (tmp_path / "other.token").write_text(signed(KEY, "ES256"))
    (tmp_path / "bare.token").write_text(signed(KEY, "ES256", claims(iss="trefoil-federation", jti=None)))
    (tmp_path / "no.token").write_text("opaque")
    with pytest.raises(InvalidInput, match=problem):
        keys("revoke", "keys", "--issuer", "federation", *arguments)
    assert not (tmp_path / "keys" / "federation" / "revoked.toml").exists()
