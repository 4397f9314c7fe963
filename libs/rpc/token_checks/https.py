"""Calls to the services that know about tokens: https only, verified, bounded in time and size."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import quote_plus, urlsplit

import httpx

from libs.core.clock import Clock
from libs.core.errors import InvalidInput, Unavailable
from libs.core.secret import Secret
from libs.rpc.token_checks.breaker import CircuitBreaker
from libs.runtime.logging import get_logger

log = get_logger(__name__)

MAX_ANSWER_BYTES = 256 * 1024
_CONNECTIONS = 16


@dataclass(frozen=True)
class Remote:
    """Where a remote service is, who vouches for it, and how patient we are."""

    url: str
    ca: Path | None = None
    timeout_s: float = 5.0
    failures: int = 5
    open_s: float = 10.0

    def __post_init__(self) -> None:
        try:
            parts = urlsplit(self.url)
            port_is_a_number = parts.port is None or parts.port > 0
        except ValueError:
            parts, port_is_a_number = urlsplit(""), False
        if (
            not port_is_a_number
            or parts.scheme != "https"
            or not parts.hostname
            or parts.username is not None
            or parts.fragment
        ):
            raise InvalidInput("The address of a service that checks tokens is https://host[:port]/path.")


@dataclass(frozen=True)
class Answer:
    """The status and body; the body may name people, so it does not print."""

    status: int
    body: bytes = field(repr=False)


class HttpsEndpoint:
    """One address, behind a circuit breaker. No redirects, and no proxies of the environment.

    Failures are Unavailable and say nothing of the request, whose body is a token.
    """

    def __init__(self, remote: Remote, *, clock: Clock, auth: tuple[str, Secret[str]] | None = None) -> None:
        self._remote, self._auth = remote, auth
        self._breaker = CircuitBreaker(failures=remote.failures, open_s=remote.open_s, clock=clock)
        self._context = _tls(remote.ca)
        self._client: httpx.AsyncClient | None = None  # needs the event loop, so made by the first call

    async def get(self, *, good: Callable[[Answer], bool]) -> Answer:
        """GET; an answer that is not `good` counts as a failure of the service."""
        return await self._send(httpx.Request("GET", self._remote.url), good)

    async def post_form(self, fields: dict[str, str], *, good: Callable[[Answer], bool]) -> Answer:
        """POST of a form, with the client's id and secret if there are any."""
        return await self._send(httpx.Request("POST", self._remote.url, data=fields), good)

    async def post_json(self, body: dict[str, str], *, good: Callable[[Answer], bool]) -> Answer:
        """POST of a JSON object."""
        return await self._send(httpx.Request("POST", self._remote.url, json=body), good)

    async def close(self) -> None:
        """Close the connections; a later call would open new ones."""
        client, self._client = self._client, None
        if client is not None:
            await client.aclose()

    async def _send(self, request: httpx.Request, good: Callable[[Answer], bool]) -> Answer:
        request.headers["accept"] = "application/json"
        request.headers["accept-encoding"] = "identity"  # so that the bound on the size holds

        async def attempt() -> Answer:
            answer = await self._exchange(request)
            if not good(answer):
                raise self._failure(f"status_{answer.status}")
            return answer

        return await self._breaker.call(attempt)

    async def _exchange(self, request: httpx.Request) -> Answer:
        try:
            async with asyncio.timeout(self._remote.timeout_s):
                response = await self._opened().send(
                    request, stream=True, auth=self._credentials(), follow_redirects=False
                )
                try:
                    if response.headers.get("content-encoding", "identity") != "identity":
                        raise self._failure("answer_compressed")
                    body = bytearray()
                    async for chunk in response.aiter_raw():
                        body += chunk
                        if len(body) > MAX_ANSWER_BYTES:
                            raise self._failure("answer_too_large")
                    return Answer(response.status_code, bytes(body))
                finally:
                    await response.aclose()
        except (httpx.HTTPError, OSError) as error:  # OSError: timeouts and TLS too
            failure = type(error).__name__
        # outside of the except clause: the error holds the request, and with it the token
        raise self._failure(failure)

    def _credentials(self) -> tuple[str, str] | None:
        """Id and secret for HTTP Basic, each form-encoded first (RFC 6749, 2.3.1)."""
        if self._auth is None:
            return None
        client_id, secret = self._auth
        return quote_plus(client_id), quote_plus(secret.expose())

    def _opened(self) -> httpx.AsyncClient:
        if self._client is None:
            self._client = httpx.AsyncClient(
                verify=self._context,
                trust_env=False,
                timeout=self._remote.timeout_s,
                limits=httpx.Limits(max_connections=_CONNECTIONS),
            )
        return self._client

    def _failure(self, failure: str) -> Unavailable:
        host = urlsplit(self._remote.url).hostname
        log.warning("token_service_failed", host=host, failure=failure)
        return Unavailable(
            f"The service that checks tokens ({host}) did not answer as it should. Try again in a minute."
        )


def _tls(ca: Path | None) -> ssl.SSLContext:
    """Verifies certificate and name; with `ca`, that CA alone counts."""
    try:
        return ssl.create_default_context(cafile=None if ca is None else str(ca))
    except (OSError, ssl.SSLError) as error:
        raise InvalidInput(f"The CA certificate {ca} cannot be read or is not PEM.") from error
