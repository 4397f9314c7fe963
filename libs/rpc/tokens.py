"""Who a person or worker is, on top of the certificate: short JSON Web Tokens (RFC 7519).

One algorithm is pinned to each key on both sides, so neither `none` nor a public key used as an HMAC secret
can pass. Every claim is required; the issuer picks the key, and each key accepts one audience only, so a
token of one hospital's staff is worth nothing at another hospital or in the federation.

Here are the tokens that Trefoil issues and the checks that need no network; `token_checks` has the rest.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import jwt

from libs.core.clock import Clock, SystemClock
from libs.core.errors import InvalidInput, Unauthenticated
from libs.core.ids import new_id
from libs.core.secret import Secret
from libs.rpc.token_checks.binding import thumbprint
from libs.rpc.token_checks.claims import (
    ASK,
    MAX_LIFETIME_S,
    THUMBPRINT,
    Expected,
    Role,
    RoleRule,
    TokenClaims,
)
from libs.rpc.token_checks.keys import TokenKey
from libs.rpc.token_checks.signatures import HmacAlgorithm, claimed_issuer, verified
from libs.runtime.private_files import require_private

__all__ = [
    "FEDERATION_AUDIENCE",
    "FEDERATION_ISSUER",
    "MIN_SECRET_BYTES",
    "Role",
    "TokenClaims",
    "TokenIssuer",
    "TokenSecret",
    "TokenVerifier",
    "read_token_secret",
]

MIN_SECRET_BYTES = HmacAlgorithm.HS256.hash_bytes

FEDERATION_ISSUER = "trefoil-federation"
FEDERATION_AUDIENCE = "trefoil"


@dataclass(frozen=True)
class TokenSecret:
    """One issuer's HMAC secret, its algorithm, and the only audience it may issue for."""

    issuer: str
    secret: Secret[bytes]
    audience: str
    algorithm: HmacAlgorithm = HmacAlgorithm.HS256
    roles: RoleRule = field(default_factory=RoleRule)
    bound: bool = False

    def __post_init__(self) -> None:
        secret = self.secret.expose()
        if len(secret) < self.algorithm.hash_bytes:
            raise InvalidInput(
                f"The token secret of {self.issuer} is shorter than {self.algorithm.hash_bytes} bytes. "
                "Make a new one with: trefoil keys init"
            )
        if b"-----BEGIN " in secret:
            raise InvalidInput(f"The token secret of {self.issuer} is a key in PEM. List it in token_keys.")

    def claims(self, token: str, *, now: datetime) -> TokenClaims:
        """What the token says; Unauthenticated unless it is good."""
        expected = Expected(self.issuer, self.audience, self.roles, self.bound)
        return verified(token, self.secret.expose(), self.algorithm, expected, now=now)


def read_token_secret(path: Path) -> Secret[bytes]:
    """The secret in `path` (hexadecimal text). InvalidInput if it is unreadable or others may read it."""
    try:
        require_private(path)
        return Secret(bytes.fromhex(path.read_text(encoding="ascii").strip()))
    except OSError as error:
        raise InvalidInput(f"The token secret {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidInput(f"The token secret {path} is not hexadecimal text.") from error


class TokenIssuer:
    """Signs tokens for one issuer."""

    def __init__(self, secret: TokenSecret, *, clock: Clock | None = None) -> None:
        self._secret, self._clock = secret, clock or SystemClock()

    def issue(
        self, *, subject: str, role: Role, lifetime: timedelta, certificate: bytes | None = None
    ) -> str:
        """A signed token for the issuer's own audience.

        With `certificate` (PEM) it is worth something only over a connection made with that certificate.
        InvalidInput for a lifetime that is not in (0, 90 days], and for what is no certificate.
        """
        if not timedelta(0) < lifetime <= timedelta(seconds=MAX_LIFETIME_S):
            raise InvalidInput(f"A token lives more than 0 s and at most {MAX_LIFETIME_S // 86400} days.")
        if not subject:
            raise InvalidInput("A token needs a subject: the person or worker it is for.")
        issued_at = int(self._clock.now().timestamp())
        claims: dict[str, Any] = {
            "iss": self._secret.issuer,
            "aud": self._secret.audience,
            "sub": subject,
            "role": role.value,
            "iat": issued_at,
            "exp": issued_at + max(1, int(lifetime.total_seconds())),
            "jti": new_id("token"),
        }
        if certificate is not None:
            claims["cnf"] = {THUMBPRINT: thumbprint(certificate)}
        return jwt.encode(claims, self._secret.secret.expose(), algorithm=self._secret.algorithm.value)


class TokenVerifier:
    """Accepts tokens of known issuers, each for its one audience; without any it accepts nothing."""

    def __init__(self, keys: Sequence[TokenSecret | TokenKey], *, clock: Clock | None = None) -> None:
        self._keys = {key.issuer: key for key in keys}
        self._clock = clock or SystemClock()
        if len(self._keys) != len(keys):
            raise InvalidInput("Two token secrets or keys name the same issuer; keep one of them.")

    @property
    def issuers(self) -> frozenset[str]:
        """Whose tokens it knows how to check."""
        return frozenset(self._keys)

    def verify(self, token: str) -> TokenClaims:
        """The claims of a token that is whole, ours, for us, and in time (within 30 s); else Unauthenticated.

        The issuer is read before the signature is checked, only to choose the key; what decides is the
        signature under that key together with the issuer and audience that belong to it.
        """
        key = self._keys.get(claimed_issuer(token) or "")
        if key is None:
            raise Unauthenticated(f"The token's issuer is not known to this service. {ASK}")
        return key.claims(token, now=self._clock.now())
