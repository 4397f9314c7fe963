"""Whose tokens a service accepts, as its settings file says it, and the gate that comes of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import Field

from libs.core.clock import Clock, SystemClock
from libs.core.errors import InvalidInput
from libs.core.secret import Secret
from libs.rpc.token_checks.cache import VerdictCache
from libs.rpc.token_checks.claims import Expected, Role, RoleRule
from libs.rpc.token_checks.consent import ConsentCheck
from libs.rpc.token_checks.gate import Confirmation, IssuerCheck, TokenGate
from libs.rpc.token_checks.https import HttpsEndpoint, Remote
from libs.rpc.token_checks.introspection import AnswerForm, IntrospectionCheck
from libs.rpc.token_checks.key_set import KeySetCheck
from libs.rpc.token_checks.keys import TokenKey, read_public_keys
from libs.rpc.token_checks.revocations import RevocationList
from libs.rpc.token_checks.signatures import HmacAlgorithm, KeyAlgorithm
from libs.rpc.token_checks.uses import TokenUses
from libs.rpc.tokens import TokenSecret, TokenVerifier, read_token_secret
from libs.runtime.private_files import require_private
from libs.runtime.settings import ServiceSettings


class _IssuerSettings(ServiceSettings):
    """An issuer, the audience its tokens must name, and where they say the role.

    `bound`: a token must name the certificate that may carry it (one that names one is held to it anyway).
    `one_time`: each token is good for one call to this service, which then needs `token_uses`.
    """

    issuer: str = Field(min_length=1)
    audience: str = Field(min_length=1)
    role_claim: str = "role"
    roles: Mapping[str, Role] = Field(default_factory=dict)
    bound: bool = False
    one_time: bool = False

    @property
    def expected(self) -> Expected:
        """The same, as checks take it."""
        rule = RoleRule(self.role_claim, dict(self.roles))
        return Expected(self.issuer, self.audience, rule, self.bound)


class TokenSecretSettings(_IssuerSettings):
    """An issuer that shares an HMAC secret (a file with hexadecimal text) with this service."""

    secret: Path
    algorithm: HmacAlgorithm = HmacAlgorithm.HS256


class TokenKeySettings(_IssuerSettings):
    """An issuer that signs with a private key: its public keys in files, or its key set at a URL.

    `key` is a PEM file with one public key or more, each of which is tried. `keys` has a file for each key
    id: a token that names its key is checked with that one.
    """

    key: Path | None = None
    keys: Mapping[str, Path] = Field(default_factory=dict)
    jwks_url: str | None = None
    ca: Path | None = None
    rsa_algorithm: Literal[KeyAlgorithm.RS256, KeyAlgorithm.PS256] = KeyAlgorithm.RS256
    timeout_s: float = Field(default=5.0, gt=0, le=60)
    max_age_s: float = Field(default=600.0, gt=0, le=86_400)
    min_refetch_s: float = Field(default=5.0, ge=1, le=600)


class TokenIntrospectionSettings(_IssuerSettings):
    """An issuer's service that is asked about its tokens.

    `additional` says that it must agree to tokens that a secret or key of the same issuer has verified;
    otherwise it decides alone, about opaque tokens too. PyGrid's style is always additional.
    With several that decide alone, `token_prefix` says how the opaque tokens of each begin.
    `assume_issuer` and `subject_claim` are for answers that leave out `iss` or `sub`.
    """

    url: str
    style: Literal["rfc7662", "pygrid"] = "rfc7662"
    additional: bool = False
    token_prefix: str = Field(default="", pattern=r"^[A-Za-z0-9._~+/=-]*$")
    assume_issuer: bool = False
    subject_claim: str = Field(default="sub", min_length=1)
    client_id: str | None = None
    client_secret: Path | None = None
    ca: Path | None = None
    timeout_s: float = Field(default=5.0, gt=0, le=60)
    accepted_for_s: float = Field(default=30.0, ge=0, le=3600)
    refused_for_s: float = Field(default=10.0, ge=0, le=3600)
    cached_tokens: int = Field(default=10_000, ge=1, le=1_000_000)
    failures: int = Field(default=5, ge=1, le=1000)
    open_s: float = Field(default=10.0, gt=0, le=600)


_DECIDES_ALONE = {"bound", "one_time", "token_prefix", "assume_issuer", "subject_claim"}


def token_gate(
    secrets: Sequence[TokenSecretSettings],
    keys: Sequence[TokenKeySettings],
    introspection: Sequence[TokenIntrospectionSettings],
    *,
    own: Sequence[IssuerCheck] = (),
    revocations: Path | None = None,
    uses: Path | None = None,
    clock: Clock | None = None,
) -> TokenGate:
    """The gate for these issuers. Reads every file; InvalidInput says which one is not as it should be.

    `own` checks tokens that this service itself issues. Unavailable if the record of used tokens cannot be
    opened.
    """
    clock = clock or SystemClock()
    local = TokenVerifier(
        [*(_secret(entry) for entry in secrets), *(_key(entry) for entry in keys if _has_file(entry))],
        clock=clock,
    )
    remote = [*(_key_set(entry, clock) for entry in keys if entry.jwks_url is not None), *own]
    alone = _opaque(introspection, clock)
    confirmations = {
        entry.issuer: _confirmation(entry, clock) for entry in introspection if _additional(entry)
    }
    if len(confirmations) + len(alone) != len(introspection):
        raise InvalidInput("Two additional token checks name the same issuer; keep one of them.")
    one_time = frozenset(entry.issuer for entry in (*secrets, *keys, *introspection) if entry.one_time)
    return TokenGate(
        local,
        remote=remote,
        opaque=alone,
        confirmations=confirmations,
        revocations=None if revocations is None else RevocationList(revocations),
        one_time=one_time,
        uses=TokenUses(uses, clock=clock) if uses is not None and one_time else None,
    )


def _secret(entry: TokenSecretSettings) -> TokenSecret:
    expected = entry.expected
    return TokenSecret(
        issuer=expected.issuer,
        secret=read_token_secret(entry.secret),
        audience=expected.audience,
        algorithm=entry.algorithm,
        roles=expected.roles,
        bound=expected.bound,
    )


def _has_file(entry: TokenKeySettings) -> bool:
    if [entry.key is not None, bool(entry.keys), entry.jwks_url is not None].count(True) != 1:
        raise InvalidInput(
            f"The token key of {entry.issuer} needs either key (a file), keys (a file for each key id) or "
            "jwks_url, and only one of them."
        )
    return entry.jwks_url is None


def _key(entry: TokenKeySettings) -> TokenKey:
    if entry.key is not None:
        return TokenKey(entry.expected, read_public_keys(entry.key, rsa_algorithm=entry.rsa_algorithm))
    found = {
        key_id: read_public_keys(file, rsa_algorithm=entry.rsa_algorithm)
        for key_id, file in entry.keys.items()
    }
    for key_id, keys in found.items():
        if len(keys) != 1:
            raise InvalidInput(f"{entry.keys[key_id]} has several keys. A key id is for one of them.")
    return TokenKey(entry.expected, tuple(keys[0] for keys in found.values()), tuple(found))


def _key_set(entry: TokenKeySettings, clock: Clock) -> KeySetCheck:
    assert entry.jwks_url is not None
    remote = Remote(url=entry.jwks_url, ca=entry.ca, timeout_s=entry.timeout_s)
    return KeySetCheck(
        entry.expected,
        HttpsEndpoint(remote, clock=clock),
        rsa_algorithm=entry.rsa_algorithm,
        max_age_s=entry.max_age_s,
        min_refetch_s=entry.min_refetch_s,
        clock=clock,
    )


def _opaque(
    introspection: Sequence[TokenIntrospectionSettings], clock: Clock
) -> Mapping[str, IntrospectionCheck]:
    """The checks that decide alone, by how their issuer's opaque tokens begin."""
    entries = [entry for entry in introspection if not _additional(entry)]
    if len({entry.token_prefix for entry in entries}) != len(entries):
        raise InvalidInput(
            "Two token_introspection entries decide alone about opaque tokens that begin alike, and each "
            "would see the tokens of the other. Give them the token_prefix of their tokens, or keep one."
        )
    return {entry.token_prefix: _introspection(entry, clock) for entry in entries}


def _additional(entry: TokenIntrospectionSettings) -> bool:
    if entry.style == "pygrid" and not entry.additional:
        raise InvalidInput(
            f"PyGrid's check of {entry.issuer} does not say who a token is for, so it cannot decide alone. "
            "Set additional = true and list the issuer's secret or key."
        )
    if entry.additional and _DECIDES_ALONE & entry.model_fields_set:
        raise InvalidInput(
            f"The additional check of {entry.issuer} cannot set {', '.join(sorted(_DECIDES_ALONE))}. Set "
            "them in the entry that reads the tokens, if at all."
        )
    return entry.additional


def _introspection(entry: TokenIntrospectionSettings, clock: Clock) -> IntrospectionCheck:
    if entry.client_id is None or entry.client_secret is None:
        raise InvalidInput(f"The token_introspection of {entry.issuer} needs client_id and client_secret.")
    endpoint = HttpsEndpoint(
        _remote(entry), clock=clock, auth=(entry.client_id, _client_secret(entry.client_secret))
    )
    return IntrospectionCheck(
        entry.expected,
        endpoint,
        cache=_cache(entry, clock),
        clock=clock,
        form=AnswerForm(assume_issuer=entry.assume_issuer, subject_claim=entry.subject_claim),
    )


def _confirmation(entry: TokenIntrospectionSettings, clock: Clock) -> Confirmation:
    if entry.style == "pygrid":
        return ConsentCheck(HttpsEndpoint(_remote(entry), clock=clock), cache=_cache(entry, clock))
    return _introspection(entry, clock)


def _remote(entry: TokenIntrospectionSettings) -> Remote:
    return Remote(
        url=entry.url,
        ca=entry.ca,
        timeout_s=entry.timeout_s,
        failures=entry.failures,
        open_s=entry.open_s,
    )


def _cache(entry: TokenIntrospectionSettings, clock: Clock) -> VerdictCache[Any]:
    return VerdictCache(
        entries=entry.cached_tokens,
        accepted_s=entry.accepted_for_s,
        refused_s=entry.refused_for_s,
        clock=clock,
    )


def _client_secret(path: Path) -> Secret[str]:
    try:
        require_private(path)
        text = path.read_text(encoding="utf-8").strip()
    except OSError as error:
        raise InvalidInput(f"The client secret {path} cannot be read: {error.strerror}.") from error
    except ValueError as error:
        raise InvalidInput(f"The client secret {path} is not text.") from error
    if not text:
        raise InvalidInput(f"The client secret {path} is empty.")
    return Secret(text)
