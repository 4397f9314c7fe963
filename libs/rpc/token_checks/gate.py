"""Which check a token has to pass: its issuer's, and the additional one where the settings ask for it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Protocol

from libs.core.errors import InvalidInput, Unauthenticated
from libs.rpc.token_checks.claims import ASK, MAX_TOKEN_BYTES, TokenClaims
from libs.rpc.token_checks.signatures import claimed_issuer, is_jwt
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

    A token that is no JWT names no issuer: `opaque` checks it, if there is one.
    """

    def __init__(
        self,
        local: TokenVerifier,
        *,
        remote: Sequence[IssuerCheck] = (),
        opaque: IssuerCheck | None = None,
        confirmations: Mapping[str, Confirmation] | None = None,
    ) -> None:
        self._local, self._opaque = local, opaque
        self._confirmations = dict(confirmations or {})
        checks = [*remote, *([] if opaque is None else [opaque])]
        self._remote = {check.issuer: check for check in checks}
        if len(self._remote) != len(checks) or self._remote.keys() & local.issuers:
            raise InvalidInput("Two token checks name the same issuer; keep one, or make one additional.")
        alone = self._confirmations.keys() - local.issuers - self._remote.keys()
        if alone:
            raise InvalidInput(
                f"An additional token check names {min(alone)}, whose tokens no other check reads. "
                "Check the issuer's spelling."
            )

    async def check(self, token: str) -> TokenClaims:
        """What the token says, if every check for its issuer accepts it.

        Unauthenticated if one refuses, Unavailable if one cannot tell. The local check is first, so that
        nobody makes us ask a remote service about a token that was made up.
        """
        if len(token.encode()) > MAX_TOKEN_BYTES:
            raise Unauthenticated(f"The token is longer than any that this service accepts. {ASK}")
        claims = await self._issuers_own(token)
        confirmation = self._confirmations.get(claims.issuer)
        if confirmation is not None:
            await confirmation.confirm(token, claims)
        return claims

    async def close(self) -> None:
        """Let go of all connections."""
        for check in self._remote.values():
            await check.close()
        for confirmation in self._confirmations.values():
            await confirmation.close()

    async def _issuers_own(self, token: str) -> TokenClaims:
        if self._opaque is not None and not is_jwt(token):
            return await self._opaque.check(token)
        remote = self._remote.get(claimed_issuer(token) or "")
        return self._local.verify(token) if remote is None else await remote.check(token)
