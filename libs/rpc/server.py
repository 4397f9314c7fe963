"""The one kind of gRPC server there is: mutual TLS, the interceptor chain, health, graceful shutdown."""

from __future__ import annotations

import asyncio
import signal
from collections.abc import Awaitable, Callable
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection as grpc_reflection

from libs.core.errors import InvalidInput, Unavailable
from libs.rpc.health import HealthService
from libs.rpc.identity import TlsFiles
from libs.rpc.interceptors import interceptor_chain
from libs.rpc.interceptors.authorisation import Grants
from libs.rpc.interceptors.recording import RecordingInterceptor
from libs.rpc.interceptors.refusal import OnRefusal, nobody_listens
from libs.rpc.options import SERVER_OPTIONS
from libs.rpc.recorder import Recorder
from libs.rpc.tls import server_credentials
from libs.rpc.token_checks.gate import TokenGate
from libs.rpc.tokens import TokenVerifier
from libs.runtime.logging import get_logger

log = get_logger(__name__)

GRACE_S = 5.0
_SIGNALS = (signal.SIGTERM, signal.SIGINT)
_SERVING = health_pb2.HealthCheckResponse.SERVING


class RpcServer:
    """Serves the added services on one port.

    `listen` is "host:port"; port 0 picks a free one. Nothing listens before `start`.
    """

    def __init__(
        self,
        *,
        name: str,
        listen: str,
        tls: TlsFiles,
        tokens: TokenGate | TokenVerifier,
        reflection: bool = False,
        recorder: Recorder | None = None,
        grants: Grants | None = None,
        on_refusal: OnRefusal = nobody_listens,
    ) -> None:
        """`grants` says what the accounts of a hospital node may do."""
        self._name, self._listen, self._tls, self._reflection = name, listen, tls, reflection
        self._gate = tokens if isinstance(tokens, TokenGate) else TokenGate(tokens)
        recording = () if recorder is None else (RecordingInterceptor(recorder),)
        self._server = grpc.aio.server(
            interceptors=(
                *recording,
                *interceptor_chain(self._gate, grants=grants, on_refusal=on_refusal),
            ),
            options=SERVER_OPTIONS,
        )
        self._health = HealthService()
        self._services = [health.SERVICE_NAME]
        self._stopped = asyncio.Event()
        self._on_stop: list[Callable[[], Awaitable[None]]] = []
        self._after_stop: list[Callable[[], Awaitable[None]]] = []
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)

    def add(
        self, register: Callable[[Any, grpc.aio.Server], None], servicer: object, service_name: str
    ) -> None:
        """Add a service: its generated `add_XServicer_to_server`, the servicer, and its full name."""
        register(servicer, self._server)
        self._services.append(service_name)

    def on_stop(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have `close` awaited when stopping begins.

        It should end long-lived streams, which else use up the grace.
        """
        self._on_stop.append(close)

    def after_stop(self, close: Callable[[], Awaitable[None]]) -> None:
        """Have `close` awaited once the last call has ended."""
        self._after_stop.append(close)

    async def start(self) -> int:
        """Begin serving; the bound port. Unavailable if the port is taken, InvalidInput for bad TLS files."""
        if self._reflection:
            self._services.append(grpc_reflection.SERVICE_NAME)
            grpc_reflection.enable_server_reflection(self._services, self._server)
        port = self._bind()
        await self._server.start()
        for service in ("", *self._services):
            await self._health.set(service, _SERVING)
        log.info("server_started", name=self._name, listen=self._listen, port=port)
        return port

    def _bind(self) -> int:
        if not self._listen.rpartition(":")[2].isdecimal():
            raise InvalidInput(f"listen is host:port, for example 127.0.0.1:7000, not {self._listen!r}.")
        try:
            port = self._server.add_secure_port(self._listen, server_credentials(self._tls))
        except RuntimeError as error:
            raise _cannot_listen(self._listen) from error
        if port == 0:
            raise _cannot_listen(self._listen)
        return port

    def stop_on_signals(self) -> None:
        """From now on SIGTERM and SIGINT end `serve_until_stopped`; call it before `start`."""
        loop = asyncio.get_running_loop()
        for number in _SIGNALS:
            loop.add_signal_handler(number, self._stopped.set)

    async def serve_until_stopped(self, *, grace_s: float = GRACE_S) -> None:
        """Serve until SIGTERM or SIGINT, then stop gracefully."""
        self.stop_on_signals()
        loop = asyncio.get_running_loop()
        try:
            await self._stopped.wait()
        finally:
            for number in _SIGNALS:
                loop.remove_signal_handler(number)
            await self.stop(grace_s=grace_s)

    async def stop(self, *, grace_s: float) -> None:
        """Take no new calls, let running ones finish for `grace_s` seconds, then cancel them."""
        closers, self._on_stop = self._on_stop, []
        await self._health.enter_graceful_shutdown()
        await asyncio.gather(self._server.stop(grace_s), *(_closed(close, grace_s) for close in closers))
        await _closed(self._gate.close, grace_s)  # after the last call that may ask about a token
        last, self._after_stop = self._after_stop, []
        for close in last:
            await _closed(close, grace_s)
        log.info("server_stopped", name=self._name)


async def _closed(close: Callable[[], Awaitable[None]], grace_s: float) -> None:
    """Run a closer; one that fails or hangs must not keep the server from stopping."""
    try:
        async with asyncio.timeout(max(grace_s, 1.0)):
            await close()
    except Exception as error:
        log.error("closer_failed", exc_info=error)


def _cannot_listen(listen: str) -> Unavailable:
    return Unavailable(
        f"Cannot listen on {listen}: another process has the port, or the address is not this machine's. "
        "Stop the other process or set another port."
    )
