"""Which check a token has to pass: its issuer's, and the additional one where the settings ask for it."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from itertools import pairwise
from typing import Protocol

from libs.core.errors import InvalidInput, Unauthenticated
from libs.rpc.token_checks.binding import require_its_certificate
from libs.rpc.token_checks.claims import ASK, MAX_TOKEN_BYTES, TokenClaims
from libs.rpc.token_checks.revocations import RevocationList
from libs.rpc.token_checks.signatures import claimed_issuer, is_jwt
from libs.rpc.token_checks.uses import TokenUses
from libs.rpc.tokens import TokenVerifier


class IssuerCheck(Protocol):
    """Decides alone about the tokens of one issuer."""

    @property
    def issuer(self) -> str:
        """Whose tokens it checks."""
        ...

    async def check(self, token: str) -> TokenClaims:
        """What the token says; Unauthenticated or Unavailable otherwise."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class Confirmation(Protocol):
    """Has to agree to a token that passed its issuer's check."""

    async def confirm(self, token: str, claims: TokenClaims) -> None:
        """Nothing if it agrees; Unauthenticated or Unavailable otherwise."""
        ...

    async def close(self) -> None:
        """Let go of connections."""
        ...


class TokenGate:
    """Lets the tokens of known issuers in, and nobody else's: without any check it lets nobody in.

    A token that is no JWT names no issuer: its beginning says which of `opaque` checks it, and no other one
    sees it; "" takes those that begin like none of the others. `one_time` lists issuers each of whose tokens
    is good for one call.
    """

    def __init__(
        self,
        local: TokenVerifier,
        *,
        remote: Sequence[IssuerCheck] = (),
        opaque: Mapping[str, IssuerCheck] | None = None,
        confirmations: Mapping[str, Confirmation] | None = None,
        revocations: RevocationList | None = None,
        one_time: frozenset[str] = frozenset(),
        uses: TokenUses | None = None,
    ) -> None:
        self._local, self._opaque = local, dict(opaque or {})
        self._confirmations = dict(confirmations or {})
        self._revocations, self._one_time, self._uses = revocations, one_time, uses
        if one_time and uses is None:
            raise InvalidInput(
                f"Tokens of {min(one_time)} are good for one call, and nothing remembers which were used. "
                'Set token_uses = "token_uses.db".'
            )
        _require_distinct(self._opaque)
        checks = [*remote, *self._opaque.values()]
        self._remote = {check.issuer: check for check in checks}
        if len(self._remote) != len(checks) or self._remote.keys() & local.issuers:
            raise InvalidInput("Two token checks name the same issuer; keep one, or make one additional.")
        alone = self._confirmations.keys() - local.issuers - self._remote.keys()
        if alone:
            raise InvalidInput(
                f"An additional token check names {min(alone)}, whose tokens no other check reads. "
                "Check the issuer's spelling."
            )

    async def check(self, token: str, *, certificate: bytes | None = None) -> TokenClaims:
        """What the token says, if every check for its issuer accepts it.

        `certificate` (PEM) is the one of the caller's connection. Unauthenticated if a check refuses,
        Unavailable if one cannot tell. The local checks are first, so that nobody makes us ask a remote
        service about a token that was made up, stolen or taken back.
        """
        if len(token.encode()) > MAX_TOKEN_BYTES:
            raise Unauthenticated(f"The token is longer than any that this service accepts. {ASK}")
        claims = await self._issuers_own(token)
        require_its_certificate(claims, certificate)
        if self._revocations is not None:
            await self._revocations.check(claims)
        confirmation = self._confirmations.get(claims.issuer)
        if confirmation is not None:
            await confirmation.confirm(token, claims)
        return claims

    async def spend(self, claims: TokenClaims) -> None:
        """Use up a token that is good for one call; nothing for others.

        The last thing before the call is let in, when everything else was found in order: a refused call
        uses up nothing. Unauthenticated if it was used before, Unavailable if that cannot be written down.
        """
        if claims.issuer in self._one_time and self._uses is not None:
            await self._uses.spend(claims)

    async def close(self) -> None:
        """Let go of all connections and files."""
        if self._uses is not None:
            self._uses.close()
        for check in self._remote.values():
            await check.close()
        for confirmation in self._confirmations.values():
            await confirmation.close()

    async def _issuers_own(self, token: str) -> TokenClaims:
        if self._opaque and not is_jwt(token):
            return await self._opaque_check(token).check(token)
        remote = self._remote.get(claimed_issuer(token) or "")
        return self._local.verify(token) if remote is None else await remote.check(token)

    def _opaque_check(self, token: str) -> IssuerCheck:
        prefix = max((known for known in self._opaque if token.startswith(known)), key=len, default=None)
        if prefix is None:
            raise Unauthenticated(f"The token begins like those of no issuer known to this service. {ASK}")
        return self._opaque[prefix]


def _require_distinct(prefixes: Collection[str]) -> None:
    """InvalidInput if one prefix begins with another: both issuers would claim the longer one's tokens."""
    named = sorted(prefix for prefix in prefixes if prefix)
    for prefix, following in pairwise(named):
        if following.startswith(prefix):
            raise InvalidInput(f"The token_prefix {following!r} begins with {prefix!r}. Use distinct ones.")
