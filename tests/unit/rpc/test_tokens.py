"""The clock's part in tokens, and secrets that are not good enough. Forgeries are tried over the wire."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from libs.core.errors import InvalidInput, Unauthenticated
from libs.core.secret import Secret
from libs.rpc.tokens import Role, TokenIssuer, TokenSecret, TokenVerifier, read_token_secret

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
SECRET = TokenSecret(issuer="trefoil-federation", secret=Secret(b"s" * 32), audience="trefoil")


class At:
    """A clock that stands still."""

    def __init__(self, seconds: float) -> None:
        self._now = NOON + timedelta(seconds=seconds)

    def now(self) -> datetime:
        return self._now

    def monotonic_s(self) -> float:
        return 0.0


def issued(*, at_s: float = 0, lifetime_s: float = 600) -> str:
    issuer = TokenIssuer(SECRET, clock=At(at_s))
    return issuer.issue(subject="dana", role=Role.SCIENTIST, lifetime=timedelta(seconds=lifetime_s))


def test_a_token_gives_back_what_was_issued() -> None:
    claims = TokenVerifier([SECRET], clock=At(1)).verify(issued())
    assert (claims.subject, claims.role, claims.issuer, claims.audience) == (
        "dana",
        Role.SCIENTIST,
        "trefoil-federation",
        "trefoil",
    )
    assert claims.expires_at == NOON + timedelta(seconds=600)


def test_no_two_tokens_have_the_same_id() -> None:
    verifier = TokenVerifier([SECRET], clock=At(1))
    assert verifier.verify(issued()).token_id != verifier.verify(issued()).token_id


@pytest.mark.parametrize(("now_s", "accepted"), [(599, True), (629, True), (630, False), (10_000, False)])
def test_an_expired_token_is_accepted_for_30_seconds_of_clock_skew_only(now_s: float, accepted: bool) -> None:
    verifier = TokenVerifier([SECRET], clock=At(now_s))
    if accepted:
        verifier.verify(issued())
    else:
        with pytest.raises(Unauthenticated, match=r"has expired.*trefoil keys token"):
            verifier.verify(issued())


@pytest.mark.parametrize(("ahead_s", "accepted"), [(30, True), (31, False)])
def test_a_token_of_the_future_is_accepted_for_30_seconds_of_clock_skew_only(
    ahead_s: float, accepted: bool
) -> None:
    verifier = TokenVerifier([SECRET], clock=At(0))
    if accepted:
        verifier.verify(issued(at_s=ahead_s))
    else:
        with pytest.raises(Unauthenticated, match="in the future"):
            verifier.verify(issued(at_s=ahead_s))


@pytest.mark.parametrize("lifetime", [timedelta(0), timedelta(seconds=-1), timedelta(days=91)])
def test_a_lifetime_that_is_nothing_or_too_long_is_not_issued(lifetime: timedelta) -> None:
    with pytest.raises(InvalidInput, match="at most 90 days"):
        TokenIssuer(SECRET).issue(subject="dana", role=Role.OWNER, lifetime=lifetime)


def test_a_verifier_without_secrets_accepts_nothing() -> None:
    with pytest.raises(Unauthenticated, match="issuer is not known"):
        TokenVerifier([], clock=At(1)).verify(issued())


def test_a_short_secret_is_refused() -> None:
    with pytest.raises(InvalidInput, match="shorter than 32 bytes"):
        TokenSecret(issuer="me", secret=Secret(b"short"), audience="trefoil")


def test_two_secrets_for_one_issuer_are_refused() -> None:
    with pytest.raises(InvalidInput, match="same issuer"):
        TokenVerifier([SECRET, SECRET])


def test_a_secret_file_that_everybody_may_read_is_refused(tmp_path: Path) -> None:
    file = tmp_path / "jwt.secret"
    file.write_text("ab" * 32)
    file.chmod(0o640)
    assert read_token_secret(file).expose() == b"\xab" * 32
    file.chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod 600"):
        read_token_secret(file)


def test_a_secret_file_that_is_missing_or_not_hexadecimal_is_named(tmp_path: Path) -> None:
    file = tmp_path / "jwt.secret"
    with pytest.raises(InvalidInput, match="cannot be read: No such file"):
        read_token_secret(file)
    file.touch(mode=0o600)
    for content in (b"not hexadecimal", b"\xff\xfe"):
        file.write_bytes(content)
        with pytest.raises(InvalidInput, match="not hexadecimal"):
            read_token_secret(file)


def test_nothing_prints_a_secret() -> None:
    assert "ssss" not in repr(SECRET)
