"""Tokens that only their issuer understands: RFC 7662, the issuer is asked what a token says."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from libs.core.clock import Clock
from libs.core.errors import Unauthenticated
from libs.rpc.token_checks.cache import VerdictCache
from libs.rpc.token_checks.claims import ASK, THUMBPRINT, Expected, TokenClaims, accepted
from libs.rpc.token_checks.https import Answer, HttpsEndpoint
from libs.rpc.token_checks.single_flight import SingleFlight


@dataclass(frozen=True)
class AnswerForm:
    """How an issuer's answers say what RFC 7662 leaves optional.

    `assume_issuer`: an answer without `iss` is about a token of the issuer that was asked. `subject_claim`
    names the member that says who it is.
    """

    assume_issuer: bool = False
    subject_claim: str = "sub"


class IntrospectionCheck:
    """POSTs the token to the issuer, which says whether it is active and what it says.

    Alone (`check`), the answer counts only if its claims are what a signed token would have to say. In
    addition to a signed token (`confirm`), it counts if it contradicts nothing. Answers are remembered in
    `cache`. Cost: one request per token and cache time, however many calls arrive at once.
    """

    def __init__(
        self,
        expected: Expected,
        endpoint: HttpsEndpoint,
        *,
        cache: VerdictCache[TokenClaims],
        clock: Clock,
        form: AnswerForm | None = None,
    ) -> None:
        self._expected, self._endpoint, self._cache, self._clock = expected, endpoint, cache, clock
        self._form = form or AnswerForm()
        self._flights: SingleFlight[TokenClaims] = SingleFlight()

    @property
    def issuer(self) -> str:
        """Whose tokens it checks."""
        return self._expected.issuer

    async def check(self, token: str) -> TokenClaims:
        """What the token says. Unauthenticated unless its issuer vouches for it, Unavailable if it cannot."""
        return await self._said(token, self._claims)

    async def confirm(self, token: str, claims: TokenClaims) -> None:
        """As an additional check: the token is active, and its issuer says nothing else than it does."""
        await self._said(token, lambda said: self._agreed(claims, said))

    async def close(self) -> None:
        """Close the connections."""
        self._flights.close()
        await self._endpoint.close()

    async def _said(self, token: str, read: Callable[[dict[str, Any]], TokenClaims]) -> TokenClaims:
        known = self._cache.get(token)
        return known or await self._flights.run(token, lambda: self._ask(token, read))

    async def _ask(self, token: str, read: Callable[[dict[str, Any]], TokenClaims]) -> TokenClaims:
        answer = await self._endpoint.post_form(
            {"token": token, "token_type_hint": "access_token"}, good=_is_good
        )
        try:
            claims = read(_active(json.loads(answer.body)))
        except Unauthenticated as error:
            self._cache.refuse(token, str(error))
            raise
        self._cache.accept(token, claims, expires_at=claims.expires_at)
        return claims

    def _claims(self, said: dict[str, Any]) -> TokenClaims:
        told = {**said, "sub": said.get(self._form.subject_claim)}
        if self._form.assume_issuer:
            told.setdefault("iss", self.issuer)
        return accepted(told, self._expected, now=self._clock.now(), needs_issue_time=False)

    def _agreed(self, claims: TokenClaims, said: dict[str, Any]) -> TokenClaims:
        """The claims, if what the answer says of them is the same; RFC 7662 promises `active` alone."""
        signed = {
            "iss": claims.issuer,
            "aud": claims.audience,
            "sub": claims.subject,
            "jti": claims.token_id,
            "exp": int(claims.expires_at.timestamp()),
            "iat": None if claims.issued_at is None else int(claims.issued_at.timestamp()),
            "cnf": None if claims.certificate is None else {THUMBPRINT: claims.certificate},
        }
        roles = self._expected.roles
        if any(name in said and said[name] != value for name, value in signed.items()) or (
            roles.claim in said and roles.role(said) is not claims.role
        ):
            raise Unauthenticated(f"The token's issuer says something else of it than the token. {ASK}")
        return claims


def _active(said: dict[str, Any]) -> dict[str, Any]:
    """The answer about a token that is active, with an audience of one as a text."""
    if said.get("active") is not True:
        raise Unauthenticated(f"The token's issuer says that it is not valid (any more). {ASK}")
    audience = said.get("aud")
    if isinstance(audience, list) and len(audience) == 1:
        return {**said, "aud": audience[0]}
    return said


def _is_good(answer: Answer) -> bool:
    """A JSON object with 200; a refusal (401) is about our own credentials and not about the token."""
    if answer.status != 200:
        return False
    try:
        return isinstance(json.loads(answer.body), dict)
    except (ValueError, RecursionError):
        return False
