"""Who a person or worker is, on top of the certificate: short JSON Web Tokens (RFC 7519).

One algorithm (HS256) is pinned on both sides, so neither `none` nor a public key used as an HMAC secret can
pass. Every claim below is required; the issuer picks the secret, and each secret accepts one audience only,
so a token of one hospital's staff is worth nothing at another hospital or in the federation.
"""

from __future__ import annotations

import enum
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import jwt

from libs.core.clock import Clock, SystemClock
from libs.core.errors import InvalidInput, Unauthenticated
from libs.core.ids import new_id
from libs.core.secret import Secret
from libs.runtime.private_files import require_private

ALGORITHM = "HS256"
REQUIRED_CLAIMS = ("exp", "iat", "iss", "aud", "sub", "jti", "role")
CLOCK_SKEW_S = 30
MAX_LIFETIME_S = 90 * 24 * 3600
MIN_SECRET_BYTES = 32

FEDERATION_ISSUER = "trefoil-federation"
FEDERATION_AUDIENCE = "trefoil"

_ASK = "Ask whoever issues your tokens for a new one (trefoil keys token)."


class Role(enum.StrEnum):
    """What a token allows its holder to be."""

    SCIENTIST = "scientist"
    CLINICIAN = "clinician"
    WORKER = "worker"
    OWNER = "owner"
    OPERATOR = "operator"


@dataclass(frozen=True)
class TokenSecret:
    """One issuer's HMAC secret and the only audience it may issue for."""

    issuer: str
    secret: Secret[bytes]
    audience: str

    def __post_init__(self) -> None:
        if len(self.secret.expose()) < MIN_SECRET_BYTES:
            raise InvalidInput(
                f"The token secret of {self.issuer} is shorter than {MIN_SECRET_BYTES} bytes. "
                "Make a new one with: trefoil keys init"
            )


@dataclass(frozen=True)
class TokenClaims:
    """What a verified token says."""

    subject: str
    role: Role
    issuer: str
    audience: str
    expires_at: datetime
    token_id: str


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

    def issue(self, *, subject: str, role: Role, lifetime: timedelta) -> str:
        """A signed token for the issuer's own audience.

        InvalidInput for a lifetime that is not in (0, 90 days].
        """
        if not timedelta(0) < lifetime <= timedelta(seconds=MAX_LIFETIME_S):
            raise InvalidInput(f"A token lives more than 0 s and at most {MAX_LIFETIME_S // 86400} days.")
        if not subject:
            raise InvalidInput("A token needs a subject: the person or worker it is for.")
        issued_at = int(self._clock.now().timestamp())
        claims = {
            "iss": self._secret.issuer,
            "aud": self._secret.audience,
            "sub": subject,
            "role": role.value,
            "iat": issued_at,
            "exp": issued_at + max(1, int(lifetime.total_seconds())),
            "jti": new_id("token"),
        }
        return jwt.encode(claims, self._secret.secret.expose(), algorithm=ALGORITHM)


class TokenVerifier:
    """Accepts tokens of known issuers, each for its one audience."""

    def __init__(self, secrets: Sequence[TokenSecret], *, clock: Clock | None = None) -> None:
        self._secrets = {secret.issuer: secret for secret in secrets}
        self._clock = clock or SystemClock()
        if len(self._secrets) != len(secrets):
            raise InvalidInput("Two token secrets name the same issuer; keep one of them.")

    def verify(self, token: str) -> TokenClaims:
        """The claims of a token that is whole, ours, for us, and in time (within 30 s); else Unauthenticated.

        The issuer is read before the signature is checked, only to choose the secret; what decides is the
        signature under that secret together with the issuer and audience that belong to it.
        """
        secret = self._secret_for(token)
        claims = _checked_claims(token, secret)
        issued_at, expires_at = _seconds(claims, "iat"), _seconds(claims, "exp")
        now = self._clock.now().timestamp()
        if issued_at > now + CLOCK_SKEW_S:
            raise Unauthenticated(
                "The token was issued in the future. Set the clocks of both machines, then try again."
            )
        if now >= expires_at + CLOCK_SKEW_S:
            raise Unauthenticated(f"The token has expired. {_ASK}")
        if not 0 < expires_at - issued_at <= MAX_LIFETIME_S:
            raise Unauthenticated(f"The token's lifetime is longer than this service accepts. {_ASK}")
        return TokenClaims(
            subject=_text(claims, "sub"),
            role=_role(claims),
            issuer=secret.issuer,
            audience=secret.audience,
            expires_at=datetime.fromtimestamp(expires_at, UTC),
            token_id=_text(claims, "jti"),
        )

    def _secret_for(self, token: str) -> TokenSecret:
        try:
            issuer = jwt.decode(token, options={"verify_signature": False}).get("iss")
        except jwt.PyJWTError as error:
            raise Unauthenticated(f"The token is not a JSON Web Token. {_ASK}") from error
        secret = self._secrets.get(issuer) if isinstance(issuer, str) else None
        if secret is None:
            raise Unauthenticated(f"The token's issuer is not known to this service. {_ASK}")
        return secret


def _checked_claims(token: str, secret: TokenSecret) -> dict[str, Any]:
    try:
        return jwt.decode(
            token,
            secret.secret.expose(),
            algorithms=[ALGORITHM],
            issuer=secret.issuer,
            audience=secret.audience,
            # exp and iat are checked by verify(), against the clock it was given
            options={
                "require": list(REQUIRED_CLAIMS),
                "strict_aud": True,
                "verify_exp": False,
                "verify_iat": False,
            },
        )
    except jwt.InvalidAlgorithmError as error:
        raise Unauthenticated(f"The token is not signed with {ALGORITHM}. {_ASK}") from error
    except jwt.InvalidSignatureError as error:
        raise Unauthenticated(f"The token's signature is wrong. {_ASK}") from error
    except jwt.MissingRequiredClaimError as error:
        raise Unauthenticated(f"The token lacks the claim {error.claim!r}. {_ASK}") from error
    except jwt.InvalidAudienceError as error:
        raise Unauthenticated(f"The token is for another service (wrong audience). {_ASK}") from error
    except jwt.PyJWTError as error:
        raise Unauthenticated(f"The token is not valid. {_ASK}") from error


def _seconds(claims: dict[str, Any], name: str) -> int:
    value = claims[name]
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**40:
        raise Unauthenticated(f"The token's claim {name!r} is not a time in whole seconds. {_ASK}")
    return value


def _text(claims: dict[str, Any], name: str) -> str:
    value = claims[name]
    if not isinstance(value, str) or not value or len(value) > 200:
        raise Unauthenticated(f"The token's claim {name!r} is not a short text. {_ASK}")
    return value


def _role(claims: dict[str, Any]) -> Role:
    try:
        return Role(claims["role"])
    except ValueError as error:
        raise Unauthenticated(f"The token's role is not one of {', '.join(Role)}. {_ASK}") from error
