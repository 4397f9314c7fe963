"""What a token must say, however it was checked: who, as what, from whom, for whom, until when."""

from __future__ import annotations

import enum
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any

from libs.core.errors import Unauthenticated

REQUIRED_CLAIMS = ("exp", "iss", "aud", "sub", "jti")
CLOCK_SKEW_S = 30
MAX_LIFETIME_S = 90 * 24 * 3600
MAX_TOKEN_BYTES = 8192

THUMBPRINT = "x5t#S256"
_SHA256 = re.compile(r"[A-Za-z0-9_-]{43}", re.ASCII)

ASK = "Ask whoever issues your tokens for a new one (trefoil keys token)."


class Role(enum.StrEnum):
    """What a token allows its holder to be."""

    # at coordinator and parties
    SCIENTIST = "scientist"
    CLINICIAN = "clinician"
    WORKER = "worker"
    OPERATOR = "operator"
    # at a hospital node, which knows scientist, clinician and auditor too
    OWNER = "owner"
    ADMINISTRATOR = "administrator"
    COMPLIANCE_OFFICER = "compliance_officer"
    AUDITOR = "auditor"
    # an account of the node's own; what it may do stands in the node's database
    STAFF = "staff"


@dataclass(frozen=True)
class TokenClaims:
    """What a verified token says."""

    subject: str
    role: Role
    issuer: str
    audience: str
    expires_at: datetime
    token_id: str
    issued_at: datetime | None = None
    """None only where the issuer was asked and did not say."""
    certificate: str | None = None
    """The thumbprint of the only certificate that may carry the token; None for whoever holds it."""


@dataclass(frozen=True)
class RoleRule:
    """Which claim says the role, and which of its values mean which role.

    Without `values` the claim is the role itself. With them the claim is a text of words (like `scope`) or a
    list of texts (like `groups`); exactly one role must come out, so that nobody is two things at once.
    """

    claim: str = "role"
    values: Mapping[str, Role] = field(default_factory=dict)

    def role(self, claims: Mapping[str, Any]) -> Role:
        """The role. Unauthenticated if the claim is missing, unknown or ambiguous."""
        said = _claim(claims, self.claim)
        if not self.values:
            if not isinstance(said, str) or said not in set(Role):
                raise Unauthenticated(f"The token's role is not one of {', '.join(Role)}. {ASK}")
            return Role(said)
        words = said.split() if isinstance(said, str) else said
        if not isinstance(words, list):
            words = []
        roles = {self.values[word] for word in words if isinstance(word, str) and word in self.values}
        if len(roles) != 1:
            raise Unauthenticated(f"The token's claim {self.claim!r} must name exactly one role. {ASK}")
        return roles.pop()


@dataclass(frozen=True)
class Expected:
    """The one issuer and the one audience that tokens checked one way must name.

    `bound`: and the certificate of whoever carries them.
    """

    issuer: str
    audience: str
    roles: RoleRule = field(default_factory=RoleRule)
    bound: bool = False


def accepted(
    claims: Mapping[str, Any], expected: Expected, *, now: datetime, needs_issue_time: bool = True
) -> TokenClaims:
    """The claims of a token that is whole, of this issuer, for us, and in time (within 30 s).

    The signature, or the answer of the issuer, was checked before. Unauthenticated for everything else.
    Without `needs_issue_time` a missing `iat` counts as now: RFC 7662 does not promise one.
    """
    for name in REQUIRED_CLAIMS:
        _claim(claims, name)
    if claims["iss"] != expected.issuer:
        raise Unauthenticated(f"The token is from another issuer than it should be. {ASK}")
    if claims["aud"] != expected.audience:
        raise Unauthenticated(f"The token is for another service (wrong audience). {ASK}")
    expires_at = _seconds(claims, "exp")
    now_s = now.timestamp()
    said_at = _seconds(claims, "iat") if needs_issue_time or "iat" in claims else None
    issued_at: float = now_s if said_at is None else said_at
    if issued_at > now_s + CLOCK_SKEW_S:
        raise Unauthenticated(
            "The token was issued in the future. Set the clocks of both machines, then try again."
        )
    if "nbf" in claims and _seconds(claims, "nbf") > now_s + CLOCK_SKEW_S:
        raise Unauthenticated("The token is not valid yet. Set the clocks of both machines, or wait.")
    if now_s >= expires_at + CLOCK_SKEW_S:
        raise Unauthenticated(f"The token has expired. {ASK}")
    if ("iat" in claims and expires_at <= issued_at) or expires_at - issued_at > MAX_LIFETIME_S:
        raise Unauthenticated(f"The token's lifetime is longer than this service accepts. {ASK}")
    return TokenClaims(
        subject=_text(claims, "sub"),
        role=expected.roles.role(claims),
        issuer=expected.issuer,
        audience=expected.audience,
        expires_at=datetime.fromtimestamp(expires_at, UTC),
        token_id=_text(claims, "jti"),
        issued_at=None if said_at is None else datetime.fromtimestamp(said_at, UTC),
        certificate=_bound_to(claims, required=expected.bound),
    )


def _bound_to(claims: Mapping[str, Any], *, required: bool) -> str | None:
    """The thumbprint in `cnf` (RFC 8705, 3.1). A way of binding that nobody here checks is refused."""
    if "cnf" not in claims:
        if required:
            raise Unauthenticated(f"The token names no certificate that may carry it (cnf). {ASK}")
        return None
    said = claims["cnf"]
    if not isinstance(said, dict) or set(said) != {THUMBPRINT}:
        raise Unauthenticated(f"The token is bound to something else than a certificate (cnf). {ASK}")
    thumbprint = said[THUMBPRINT]
    if not isinstance(thumbprint, str) or not _SHA256.fullmatch(thumbprint):
        raise Unauthenticated(f"The token's cnf is not the SHA-256 of a certificate. {ASK}")
    return thumbprint


def _claim(claims: Mapping[str, Any], name: str) -> Any:
    if claims.get(name) is None:
        raise Unauthenticated(f"The token lacks the claim {name!r}. {ASK}")
    return claims[name]


def _seconds(claims: Mapping[str, Any], name: str) -> int:
    value = _claim(claims, name)
    if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value < 2**40:
        raise Unauthenticated(f"The token's claim {name!r} is not a time in whole seconds. {ASK}")
    return value


def _text(claims: Mapping[str, Any], name: str) -> str:
    value = claims[name]
    if not isinstance(value, str) or not value or len(value) > 200:
        raise Unauthenticated(f"The token's claim {name!r} is not a short text. {ASK}")
    return value
