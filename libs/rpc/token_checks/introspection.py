"""Tokens that only their issuer understands: RFC 7662, the issuer is asked what a token says."""

from __future__ import annotations

import json
from typing import Any

from libs.core.clock import Clock
from libs.core.errors import Unauthenticated
from libs.rpc.token_checks.cache import VerdictCache
from libs.rpc.token_checks.claims import ASK, Expected, TokenClaims, accepted
from libs.rpc.token_checks.https import Answer, HttpsEndpoint


class IntrospectionCheck:
    """POSTs the token to the issuer, which says whether it is active and what it says.

    The answer counts only if its claims are what a signed token would have to say. Answers are remembered in
    `cache`. Cost: one request per token and cache time.
    """

    def __init__(
        self, expected: Expected, endpoint: HttpsEndpoint, *, cache: VerdictCache[TokenClaims], clock: Clock
    ) -> None:
        self._expected, self._endpoint, self._cache, self._clock = expected, endpoint, cache, clock

    @property
    def issuer(self) -> str:
        """Whose tokens it checks."""
        return self._expected.issuer

    async def check(self, token: str) -> TokenClaims:
        """What the token says. Unauthenticated unless its issuer vouches for it, Unavailable if it cannot."""
        known = self._cache.get(token)
        if known is not None:
            return known
        answer = await self._endpoint.post_form(
            {"token": token, "token_type_hint": "access_token"}, good=_is_good
        )
        try:
            claims = self._claims(json.loads(answer.body))
        except Unauthenticated as error:
            self._cache.refuse(token, str(error))
            raise
        self._cache.accept(token, claims, expires_at=claims.expires_at)
        return claims

    async def confirm(self, token: str, claims: TokenClaims) -> None:
        """As an additional check: the issuer must say the same of the token as its signed claims."""
        said = await self.check(token)
        if said != claims:
            raise Unauthenticated(f"The token's issuer says something else of it than the token. {ASK}")

    async def close(self) -> None:
        """Close the connections."""
        await self._endpoint.close()

    def _claims(self, said: dict[str, Any]) -> TokenClaims:
        if said.get("active") is not True:
            raise Unauthenticated(f"The token's issuer says that it is not valid (any more). {ASK}")
        audience = said.get("aud")
        if isinstance(audience, list) and len(audience) == 1:
            said = {**said, "aud": audience[0]}
        return accepted(said, self._expected, now=self._clock.now(), needs_issue_time=False)


def _is_good(answer: Answer) -> bool:
    """A JSON object with 200; a refusal (401) is about our own credentials and not about the token."""
    if answer.status != 200:
        return False
    try:
        return isinstance(json.loads(answer.body), dict)
    except (ValueError, RecursionError):
        return False
