"""Signatures of JSON Web Tokens (RFC 7515), under one key with the one algorithm that belongs to it."""

from __future__ import annotations

import enum
from datetime import datetime
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.ec import EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey

from libs.core.errors import Unauthenticated
from libs.rpc.token_checks.claims import ASK, Expected, TokenClaims, accepted

# a header or payload of nothing but brackets is nested deeper than Python's parser goes
_NOT_A_TOKEN = (jwt.PyJWTError, RecursionError)

PublicKey = RSAPublicKey | EllipticCurvePublicKey | Ed25519PublicKey


class HmacAlgorithm(enum.StrEnum):
    """HMAC with SHA-2: whoever can check tokens can also make them."""

    HS256 = "HS256"
    HS384 = "HS384"
    HS512 = "HS512"

    @property
    def hash_bytes(self) -> int:
        """The size of the hash, and so of the shortest secret (RFC 7518, 3.2)."""
        return int(self.value[2:]) // 8


class KeyAlgorithm(enum.StrEnum):
    """What public keys check; each belongs to one type of key."""

    RS256 = "RS256"
    PS256 = "PS256"
    ES256 = "ES256"
    EDDSA = "EdDSA"


def verified(
    token: str,
    key: PublicKey | bytes,
    algorithm: HmacAlgorithm | KeyAlgorithm,
    expected: Expected,
    *,
    now: datetime,
) -> TokenClaims:
    """What a token says that `key` signed with `algorithm`, and no other; else Unauthenticated."""
    return accepted(signed_claims(token, key, algorithm), expected, now=now)


def signed_claims(
    token: str, key: PublicKey | bytes, algorithm: HmacAlgorithm | KeyAlgorithm
) -> dict[str, Any]:
    """The claims that `key` signed with `algorithm`, not looked at yet; else Unauthenticated.

    The header's `alg` only has to agree: it never chooses, so `none` and a public key
    as a secret cannot pass.
    """
    if isinstance(algorithm, HmacAlgorithm) is not isinstance(key, bytes):
        raise TypeError("a public key is never an HMAC secret")
    try:
        claims: dict[str, Any] = jwt.decode(
            token,
            key,
            algorithms=[algorithm.value],
            # everything that a token says is checked by accepted(), against the clock it was given
            options={
                "verify_exp": False,
                "verify_iat": False,
                "verify_nbf": False,
                "verify_aud": False,
                "verify_iss": False,
                "verify_sub": False,
                "verify_jti": False,
            },
        )
    except jwt.InvalidAlgorithmError as error:
        raise Unauthenticated(f"The token is not signed with {algorithm.value}. {ASK}") from error
    except jwt.InvalidSignatureError as error:
        raise Unauthenticated(f"The token's signature is wrong. {ASK}") from error
    except _NOT_A_TOKEN as error:
        raise Unauthenticated(f"The token is not valid. {ASK}") from error
    return claims


def is_jwt(token: str) -> bool:
    """Whether it has the form of a JSON Web Token; says nothing about whether it is a good one."""
    try:
        jwt.decode(token, options={"verify_signature": False})
    except _NOT_A_TOKEN:
        return False
    return True


def claimed_issuer(token: str) -> str | None:
    """The issuer that a JWT names, unverified: only to choose the key. None if it names none.

    Unauthenticated for what is no JWT.
    """
    try:
        issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
    except _NOT_A_TOKEN as error:
        raise Unauthenticated(f"The token is not a JSON Web Token. {ASK}") from error
    return issuer if isinstance(issuer, str) else None


def claimed_key_id(token: str) -> str | None:
    """The `kid` that a JWT names, unverified: only to choose the key. None if it names none.

    Unauthenticated for what is no JWT, and for a `kid` that is no text.
    """
    try:
        header = jwt.get_unverified_header(token)
    except _NOT_A_TOKEN as error:
        raise Unauthenticated(f"The token is not a JSON Web Token. {ASK}") from error
    if "kid" not in header:
        return None
    key_id = header["kid"]
    if not isinstance(key_id, str) or not key_id:
        raise Unauthenticated(f"The token does not say which key signed it (kid). {ASK}")
    return key_id


def claimed_id(token: str) -> tuple[str, str]:
    """The issuer and the id (`jti`) that a JWT names, unverified: only to take it back.

    Unauthenticated for what is no JWT or names none.
    """
    try:
        claims = jwt.decode(token, options={"verify_signature": False})
    except _NOT_A_TOKEN as error:
        raise Unauthenticated("That is not a JSON Web Token.") from error
    issuer, token_id = claims.get("iss"), claims.get("jti")
    if not isinstance(issuer, str) or not isinstance(token_id, str):
        raise Unauthenticated("That token names no issuer or no id (iss, jti).")
    return issuer, token_id
