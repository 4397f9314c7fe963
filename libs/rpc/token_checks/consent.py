"""PyGrid's remote check: a service of the organisation must agree to a token verified here."""

from __future__ import annotations

from libs.core.errors import Unauthenticated
from libs.rpc.token_checks.cache import VerdictCache
from libs.rpc.token_checks.claims import ASK, TokenClaims
from libs.rpc.token_checks.https import Answer, HttpsEndpoint
from libs.rpc.token_checks.single_flight import SingleFlight

_ACCEPTED = 200
_REFUSED = frozenset({400, 401, 403, 404, 422})


class ConsentCheck:
    """POSTs `{"auth_token": ...}`; 200 agrees. Says nothing of who it is, so it is only ever additional."""

    def __init__(self, endpoint: HttpsEndpoint, *, cache: VerdictCache[bool]) -> None:
        self._endpoint, self._cache = endpoint, cache
        self._flights: SingleFlight[None] = SingleFlight()

    async def confirm(self, token: str, claims: TokenClaims) -> None:
        """Unauthenticated if the service refuses the token, Unavailable if it does not say."""
        if not self._cache.get(token):
            await self._flights.run(token, lambda: self._ask(token, claims))

    async def close(self) -> None:
        """Close the connections."""
        self._flights.close()
        await self._endpoint.close()

    async def _ask(self, token: str, claims: TokenClaims) -> None:
        answer = await self._endpoint.post_json({"auth_token": token}, good=_is_good)
        if answer.status != _ACCEPTED:
            text = f"Your organisation's service does not accept this token. {ASK}"
            self._cache.refuse(token, text)
            raise Unauthenticated(text)
        self._cache.accept(token, True, expires_at=claims.expires_at)


def _is_good(answer: Answer) -> bool:
    """Any clear yes or no; redirects and server errors are neither."""
    return answer.status == _ACCEPTED or answer.status in _REFUSED
