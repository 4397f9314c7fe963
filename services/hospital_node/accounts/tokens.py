"""What opens the doors: access tokens for calls, refresh tokens for the next pair, codes for a first one."""

from __future__ import annotations

import base64
import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta

import jwt
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.core.clock import Clock
from libs.core.secret import Secret
from libs.rpc.token_checks.claims import THUMBPRINT, Expected, Role, TokenClaims
from libs.rpc.token_checks.signatures import KeyAlgorithm, verified

ACCESS_LIFETIME = timedelta(minutes=10)
_CODE_BYTES = 20
_REFRESH_BYTES = 32


@dataclass(frozen=True)
class Client:
    """The certificate of a connection: whose it is, and its thumbprint (`x5t#S256`)."""

    identity: str
    thumbprint: str


@dataclass(frozen=True)
class Issued:
    """A pair of tokens of one session."""

    access_token: Secret[str]
    refresh_token: Secret[str]
    access_expires_at: datetime
    refresh_expires_at: datetime
    session_id: str
    account: str


class AccessTokens:
    """Signs the node's access tokens (EdDSA) and checks them: implements `IssuerCheck` for the token gate.

    A token names its session, and the only certificate that may carry it (RFC 8705). It lives for 10 minutes;
    whether its session still goes on is asked of the database at each call (`Sessions.grants`).
    """

    def __init__(self, *, hospital: str, key: Ed25519PrivateKey, clock: Clock) -> None:
        self._key, self._clock = key, clock
        self._expected = Expected(
            issuer=f"hospital-{hospital}-accounts", audience=f"hospital-{hospital}", bound=True
        )

    @property
    def issuer(self) -> str:
        """Distinct from `hospital-<name>`, whose tokens `trefoil keys token` makes."""
        return self._expected.issuer

    def issue(self, *, account: str, session_id: str, certificate: str) -> tuple[Secret[str], datetime]:
        """A token for the account's session on this certificate (thumbprint), and when it expires."""
        issued_at = int(self._clock.now().timestamp())
        expires_at = issued_at + int(ACCESS_LIFETIME.total_seconds())
        claims = {
            "iss": self._expected.issuer,
            "aud": self._expected.audience,
            "sub": account,
            "role": Role.STAFF.value,
            "iat": issued_at,
            "exp": expires_at,
            "jti": f"{session_id}.{secrets.token_hex(8)}",
            "sid": session_id,
            "cnf": {THUMBPRINT: certificate},
        }
        token = jwt.encode(claims, self._key, algorithm=KeyAlgorithm.EDDSA.value)
        return Secret(token), datetime.fromtimestamp(expires_at, self._clock.now().tzinfo)

    async def check(self, token: str) -> TokenClaims:
        """What the token says; Unauthenticated unless this node signed it and it is in time."""
        public = self._key.public_key()
        return verified(token, public, KeyAlgorithm.EDDSA, self._expected, now=self._clock.now())

    async def close(self) -> None:
        """Nothing to let go of."""


def session_of(claims: TokenClaims) -> str:
    """The session of a token that `AccessTokens.check` accepted."""
    return claims.token_id.partition(".")[0]


def new_refresh_token() -> Secret[str]:
    """256 random bits that say nothing by themselves."""
    return Secret(f"trefoil-refresh-{secrets.token_urlsafe(_REFRESH_BYTES)}")


def new_code() -> Secret[str]:
    """A one-time code that a person can read out or type: 160 random bits, in groups of four."""
    letters = base64.b32encode(secrets.token_bytes(_CODE_BYTES)).decode("ascii")
    return Secret("-".join(letters[at : at + 4] for at in range(0, len(letters), 4)))


def code_hash(typed: str) -> str:
    """Under what a code is stored; upper and lower case, dashes and spaces do not matter."""
    letters = "".join(char for char in typed.upper() if char.isalnum())
    return token_hash(letters)


def token_hash(token: str) -> str:
    """SHA-256 in hexadecimal. Enough for what has 160 random bits or more: nobody guesses those."""
    return hashlib.sha256(token.encode(errors="surrogatepass")).hexdigest()
