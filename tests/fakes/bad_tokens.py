"""Tokens that nobody may be let in with, each bad for one reason, made with a service's own secret."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt

from libs.rpc.identity import Kind
from libs.rpc.revoke import revoke_token
from libs.rpc.tokens import Role, TokenIssuer, TokenSecret

RSA_ISSUER = "rsa-issuer"
"""An issuer that services check with an RSA public key."""


@dataclass(frozen=True)
class TokenMaker:
    """Whoever holds the secrets of the services and wants to be let in all the same.

    `secrets`: by service. `foreign`: of a hospital that none of them is. `public_pem`: the RSA public key of
    RSA_ISSUER. `revocations`: the file that the services read. `certificates`: in PEM, of others than call.
    """

    secrets: Mapping[str, TokenSecret]
    foreign: TokenSecret
    public_pem: bytes
    revocations: Path
    certificates: Mapping[Kind, bytes]

    def good(self, service: str, role: Role, *, subject: str = "dana", **changed: Any) -> str:
        """A good token of the service's own issuer, but for what is `changed`; None leaves a claim out."""
        secret = self.secrets[service]
        now = int(datetime.now(UTC).timestamp())
        claims = {
            "iss": secret.issuer,
            "aud": secret.audience,
            "sub": subject,
            "role": role.value,
            "iat": now,
            "exp": now + 600,
            "jti": f"token-{role.value}-{subject}",
            **changed,
        }
        said = {name: value for name, value in claims.items() if value is not None}
        return jwt.encode(said, secret.secret.expose(), algorithm="HS256")

    def claims(self, service: str, role: Role, **changed: Any) -> dict[str, Any]:
        """What such a token says."""
        claims: dict[str, Any] = jwt.decode(
            self.good(service, role, **changed), options={"verify_signature": False}
        )
        return claims


def _no_token(maker: TokenMaker, service: str, role: Role) -> str | None:
    return None


def _expired(maker: TokenMaker, service: str, role: Role) -> str:
    past = int(datetime.now(UTC).timestamp()) - 3600
    return maker.good(service, role, iat=past, exp=past + 60)


def _wrong_audience(maker: TokenMaker, service: str, role: Role) -> str:
    return maker.good(service, role, aud="somebody-else")


def _wrong_issuer(maker: TokenMaker, service: str, role: Role) -> str:
    return maker.good(service, role, iss="somebody-else")


def _none(maker: TokenMaker, service: str, role: Role) -> str:
    return jwt.encode(maker.claims(service, role), key=None, algorithm="none")


def _public_key_as_secret(maker: TokenMaker, service: str, role: Role) -> str:
    """HS256 under the text of the RSA public key that the service checks tokens of an issuer with."""
    claims = maker.claims(service, role, iss=RSA_ISSUER)
    header, payload, _ = jwt.encode(claims, "x" * 32, algorithm="HS256").split(".")
    algorithm = jwt.algorithms.HMACAlgorithm(jwt.algorithms.HMACAlgorithm.SHA256)
    signature = algorithm.sign(f"{header}.{payload}".encode(), maker.public_pem)
    return f"{header}.{payload}.{jwt.utils.base64url_encode(signature).decode()}"


def _another_hospitals(maker: TokenMaker, service: str, role: Role) -> str:
    return TokenIssuer(maker.foreign).issue(subject="dana", role=role, lifetime=timedelta(hours=1))


def _revoked(maker: TokenMaker, service: str, role: Role) -> str:
    token_id = f"revoked-{role.value}"
    revoke_token(maker.revocations, issuer=maker.secrets[service].issuer, token_id=token_id)
    return maker.good(service, role, jti=token_id)


def _of_another_certificate(maker: TokenMaker, service: str, role: Role) -> str:
    kind = Kind.HOSPITAL if role is Role.WORKER else Kind.CLIENT
    return TokenIssuer(maker.secrets[service]).issue(
        subject="dana", role=role, lifetime=timedelta(hours=1), certificate=maker.certificates[kind]
    )


def _not_a_token(maker: TokenMaker, service: str, role: Role) -> str:
    return "no.token.at-all"


BAD_TOKENS: Mapping[str, Callable[[TokenMaker, str, Role], str | None]] = {
    "no token": _no_token,
    "expired": _expired,
    "wrong audience": _wrong_audience,
    "wrong issuer": _wrong_issuer,
    "alg none": _none,
    "HS256 under an RSA public key": _public_key_as_secret,
    "another hospital's token": _another_hospitals,
    "revoked": _revoked,
    "of another certificate": _of_another_certificate,
    "not a token": _not_a_token,
}
