"""An issuer whose public keys are at a URL and change: JSON Web Key Sets with rotation by `kid`."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping

from libs.core.clock import Clock
from libs.core.errors import Unauthenticated, Unavailable
from libs.rpc.token_checks.claims import ASK, Expected, TokenClaims
from libs.rpc.token_checks.https import Answer, HttpsEndpoint
from libs.rpc.token_checks.keys import VerificationKey, parse_key_set
from libs.rpc.token_checks.signatures import KeyAlgorithm, claimed_key_id, verified


class KeySetCheck:
    """Checks tokens with keys that are fetched, kept for `max_age_s`, and fetched again for an unknown `kid`.

    Not more often than every `min_refetch_s`, so that made-up key ids do not become requests. Keys older than
    `max_age_s` are never used: a key that its issuer took back must end.
    """

    def __init__(
        self,
        expected: Expected,
        endpoint: HttpsEndpoint,
        *,
        rsa_algorithm: KeyAlgorithm,
        max_age_s: float,
        min_refetch_s: float,
        clock: Clock,
    ) -> None:
        self._expected, self._endpoint, self._rsa_algorithm = expected, endpoint, rsa_algorithm
        self._max_age_s, self._min_refetch_s, self._clock = max_age_s, min_refetch_s, clock
        self._keys: Mapping[str, VerificationKey] = {}
        self._fetched_at: float | None = None
        self._tried_at: float | None = None
        self._fetching: asyncio.Task[None] | None = None

    @property
    def issuer(self) -> str:
        """Whose tokens it checks."""
        return self._expected.issuer

    async def check(self, token: str) -> TokenClaims:
        """What the token says. Unauthenticated unless it is good, Unavailable without keys to tell."""
        key_id = claimed_key_id(token)
        if key_id is None:
            raise Unauthenticated(f"The token does not say which key signed it (kid). {ASK}")
        key = await self._key(key_id)
        return verified(token, key.key, key.algorithm, self._expected, now=self._clock.now())

    async def close(self) -> None:
        """Close the connections."""
        if self._fetching is not None:
            self._fetching.cancel()
        await self._endpoint.close()

    async def _key(self, key_id: str) -> VerificationKey:
        if not self._fresh() or key_id not in self._keys:
            await self._refetch()
        if not self._fresh():
            raise Unavailable(
                f"The keys of {self.issuer} could not be fetched just now. Try again in a minute."
            )
        if key_id not in self._keys:
            raise Unauthenticated(f"The token is signed with a key that its issuer does not list. {ASK}")
        return self._keys[key_id]

    def _fresh(self) -> bool:
        return self._fetched_at is not None and self._age(self._fetched_at) < self._max_age_s

    def _age(self, moment: float) -> float:
        return self._clock.monotonic_s() - moment

    async def _refetch(self) -> None:
        """Fetch the keys, once for all who wait; a caller that goes away does not end it for the others."""
        if self._fetching is None or self._fetching.done():
            if self._tried_at is not None and self._age(self._tried_at) < self._min_refetch_s:
                return
            self._tried_at = self._clock.monotonic_s()
            self._fetching = asyncio.create_task(self._fetch())
        await asyncio.shield(self._fetching)

    async def _fetch(self) -> None:
        parsed: Mapping[str, VerificationKey] = {}

        def good(answer: Answer) -> bool:
            nonlocal parsed
            try:
                parsed = parse_key_set(answer.body, rsa_algorithm=self._rsa_algorithm)
            except (ValueError, RecursionError):
                return False
            return answer.status == 200

        await self._endpoint.get(good=good)
        self._keys, self._fetched_at = parsed, self._clock.monotonic_s()
