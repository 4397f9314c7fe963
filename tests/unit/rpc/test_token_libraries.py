"""Tokens that two libraries made which nobody here wrote: what is good is accepted, what is not refused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from authlib import jose as authlib_jose
from joserfc import jwk

from libs.core.errors import Unauthenticated
from libs.core.secret import Secret
from libs.rpc.token_checks.claims import Expected, Role
from libs.rpc.token_checks.gate import TokenGate
from libs.rpc.token_checks.keys import TokenKey, read_public_keys
from libs.rpc.token_checks.signatures import HmacAlgorithm, KeyAlgorithm
from libs.rpc.tokens import TokenSecret, TokenVerifier
from tests.fakes.token_services import (
    AUDIENCE,
    ISSUER,
    NOON,
    TurnedClock,
    claims,
    ec_key,
    ed_key,
    rsa_key,
    signed,
)


def by_joserfc(key: Any, algorithm: str, said: dict[str, Any]) -> str:
    return signed(key, algorithm, said)


def by_authlib(key: Any, algorithm: str, said: dict[str, Any]) -> str:
    raw = key.raw_value if key.key_type == "oct" else key.as_pem(private=True)
    header = {"alg": algorithm, "typ": "JWT"}
    return bytes(authlib_jose.JsonWebToken([algorithm]).encode(header, said, raw)).decode()


HMAC, RSA = jwk.OctKey.import_key(b"s" * 64), rsa_key()
KEY_OF = {
    **dict.fromkeys(["HS256", "HS384", "HS512"], HMAC),
    **dict.fromkeys(["RS256", "PS256"], RSA),
    "ES256": ec_key(),
    "EdDSA": ed_key(),
}
OTHER_KEY_OF = {
    **dict.fromkeys(["HS256", "HS384", "HS512"], jwk.OctKey.import_key(b"t" * 64)),
    **dict.fromkeys(["RS256", "PS256"], rsa_key()),
    "ES256": ec_key(),
    "EdDSA": ed_key(),
}
# what is wrong with a token, and the algorithm that signs it if that is what is wrong
WRONG: dict[str, tuple[dict[str, Any], str | None]] = {
    "expired": ({"iat": int(NOON.timestamp()) - 600, "exp": int(NOON.timestamp()) - 31}, None),
    "of the future": ({"iat": int(NOON.timestamp()) + 31}, None),
    "another audience": ({"aud": "hospital-beta"}, None),
    "another issuer": ({"iss": "https://elsewhere.example"}, None),
    "without an id": ({"jti": None}, None),
    "without a subject": ({"sub": None}, None),
    "without an expiry": ({"exp": None}, None),
    "another role": ({"role": "admin"}, None),
    "bound to another certificate": ({"cnf": {"x5t#S256": "A" * 43}}, None),
    "another algorithm": ({}, "another"),
    "another key": ({}, "same"),
}


def checking(folder: Path, algorithm: str) -> TokenGate:
    """A gate for the one issuer, its algorithm pinned."""
    if KEY_OF[algorithm] is HMAC:
        secret = TokenSecret(
            issuer=ISSUER, secret=Secret(b"s" * 64), audience=AUDIENCE, algorithm=HmacAlgorithm(algorithm)
        )
        return TokenGate(TokenVerifier([secret], clock=TurnedClock()))
    rsa = KeyAlgorithm(algorithm) if KEY_OF[algorithm] is RSA else KeyAlgorithm.RS256
    (folder / "issuer.pem").write_bytes(KEY_OF[algorithm].as_pem(private=False))
    keys = read_public_keys(folder / "issuer.pem", rsa_algorithm=rsa)
    return TokenGate(TokenVerifier([TokenKey(Expected(ISSUER, AUDIENCE), keys)], clock=TurnedClock()))


async def refuses(gate: TokenGate, token: str) -> bool:
    try:
        await gate.check(token)
    except Unauthenticated:
        return True
    return False


@pytest.mark.parametrize("algorithm", KEY_OF)
@pytest.mark.parametrize("made", [by_joserfc, by_authlib])
async def test_tokens_of_two_other_libraries_are_accepted_and_rejected_alike(
    tmp_path: Path, made: Callable[[Any, str, dict[str, Any]], str], algorithm: str
) -> None:
    gate, key = checking(tmp_path, algorithm), KEY_OF[algorithm]
    said = await gate.check(made(key, algorithm, claims()))
    assert (said.subject, said.role, said.issuer, said.audience, said.token_id) == (
        "dana",
        Role.SCIENTIST,
        ISSUER,
        AUDIENCE,
        "token-1",
    )
    for name, (changed, signing) in WRONG.items():
        used, signed_by = key, algorithm
        if signing == "another":
            signed_by = {"HS256": "HS512", "RS256": "PS256", "ES256": "EdDSA"}.get(algorithm, "HS256")
            used = KEY_OF[signed_by]
        if signing == "same":
            used = OTHER_KEY_OF[algorithm]
        assert await refuses(gate, made(used, signed_by, claims(**changed))), name
