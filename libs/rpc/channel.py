"""The one way to dial a service.

Mutual TLS to an expected identity, with the token and request id on every call.
"""

from __future__ import annotations

import ipaddress
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import grpc

from libs.core.errors import Unauthenticated
from libs.core.ids import new_id
from libs.rpc.caller import current_request_id
from libs.rpc.error_catalog import REQUEST_ID_KEY, FailedCall, translate, translated
from libs.rpc.identity import Identity, TlsFiles
from libs.rpc.options import CHANNEL_OPTIONS
from libs.rpc.recorder import RESPONSE, STREAM, UNARY, Recorder
from libs.rpc.tls import channel_credentials
from libs.runtime.private_files import require_private

__all__ = ["open_channel", "translate", "translated"]

Metadata = tuple[tuple[str, str | bytes], ...]


def open_channel(
    *,
    address: str,
    server: Identity,
    tls: TlsFiles,
    token_file: Path | None = None,
    recorder: Recorder | None = None,
) -> grpc.aio.Channel:
    """A channel to `address` ("host:port") that accepts only the certificate of `server`.

    It connects by itself on the first call and again after a failure. Failed calls raise AioRpcError; pass it
    to `translate`, or make the call `with translated():`. InvalidInput if a TLS file is not what it should
    be.
    """
    options = (
        *CHANNEL_OPTIONS,
        ("grpc.ssl_target_name_override", server.dns_name),
        # Hospitals may need the HTTP proxy of their environment to get out; this machine needs none.
        ("grpc.enable_http_proxy", 0 if _is_this_machine(address) else 1),
    )
    channel = grpc.aio.secure_channel(address, channel_credentials(tls), options=options)
    named = f"{server.uri} at {address}"
    return _Channel(channel, named, None if token_file is None else TokenFile(token_file), recorder)


def _is_this_machine(address: str) -> bool:
    host = address.rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


class TokenFile:
    """A token on disk, read again when the file changes, so that it can be renewed without a restart."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._token = ""
        self._version: tuple[int, int, int] | None = None

    def read(self) -> str:
        """The token. Unauthenticated if the file is missing or empty, InvalidInput if others may read it."""
        try:
            require_private(self._path)
            state = self._path.stat()
            version = (state.st_mtime_ns, state.st_size, state.st_ino)
            if version != self._version:
                self._token = self._path.read_text(encoding="ascii").strip()
                self._version = version
        except (OSError, UnicodeDecodeError) as error:
            raise Unauthenticated(f"The token file {self._path} cannot be read. {_MAKE_TOKEN}") from error
        if not self._token or not self._token.isprintable():
            raise Unauthenticated(f"The token file {self._path} holds no token. {_MAKE_TOKEN}")
        return self._token


_MAKE_TOKEN = "Write a token into it with: trefoil keys token --out"  # noqa: S105 - advice, not a token


class _Channel(grpc.aio.Channel):
    """A channel that adds metadata to every call, says in failures whom it called, and, in tests, records
    what comes back.

    A wrapper rather than client interceptors: those need four classes and replace the call objects, whose
    streaming side (read, write, cancel) the long-lived streams rely on.
    """

    def __init__(
        self, channel: grpc.aio.Channel, server: str, token: TokenFile | None, recorder: Recorder | None
    ) -> None:
        self._channel, self._server, self._token, self._recorder = channel, server, token, recorder

    def unary_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """See grpc.aio.Channel."""
        parse = self._recorded(response_deserializer, method=method, kind=UNARY)
        return self._dressed(self._channel.unary_unary(method, request_serializer, parse))

    def unary_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """See grpc.aio.Channel."""
        parse = self._recorded(response_deserializer, method=method, kind=STREAM)
        return self._dressed(self._channel.unary_stream(method, request_serializer, parse))

    def stream_unary(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """See grpc.aio.Channel."""
        parse = self._recorded(response_deserializer, method=method, kind=UNARY)
        return self._dressed(self._channel.stream_unary(method, request_serializer, parse))

    def stream_stream(
        self,
        method: str,
        request_serializer: Callable[[Any], bytes] | None = None,
        response_deserializer: Callable[[bytes], Any] | None = None,
        _registered_method: bool | None = False,
    ) -> Any:
        """See grpc.aio.Channel."""
        parse = self._recorded(response_deserializer, method=method, kind=STREAM)
        return self._dressed(self._channel.stream_stream(method, request_serializer, parse))

    def get_state(self, try_to_connect: bool = False) -> grpc.ChannelConnectivity:
        """See grpc.aio.Channel."""
        return self._channel.get_state(try_to_connect)

    async def wait_for_state_change(self, last_observed_state: grpc.ChannelConnectivity) -> None:
        """See grpc.aio.Channel."""
        await self._channel.wait_for_state_change(last_observed_state)

    async def channel_ready(self) -> None:
        """See grpc.aio.Channel."""
        await self._channel.channel_ready()

    async def close(self, grace: float | None = None) -> None:
        """See grpc.aio.Channel."""
        await self._channel.close(grace)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        await self._channel.close()

    def _dressed(self, call: Callable[..., Any]) -> Callable[..., Any]:
        """The same call with our metadata in front of the caller's own.

        `request` is a message or, for streaming requests, an async iterator or None (then the caller writes).
        """

        def dressed(
            request: Any = None,
            *,
            timeout: float | None = None,
            metadata: Sequence[tuple[str, str | bytes]] = (),
            wait_for_ready: bool | None = None,
        ) -> Any:
            made = call(
                request,
                timeout=timeout,
                metadata=(*self._metadata(), *metadata),
                wait_for_ready=wait_for_ready,
            )
            return _Call(made, self._server)

        return dressed

    def _metadata(self) -> Metadata:
        """The request id of the call that this one serves, or a new one; and the token."""
        request_id = (REQUEST_ID_KEY, current_request_id() or new_id("request"))
        return (
            (request_id,)
            if self._token is None
            else (request_id, ("authorization", f"Bearer {self._token.read()}"))
        )

    def _recorded(
        self, parse: Callable[[bytes], Any] | None, *, method: str, kind: str
    ) -> Callable[[bytes], Any] | None:
        recorder = self._recorder
        if recorder is None:
            return parse

        def record(raw: bytes) -> Any:
            recorder.record(direction=RESPONSE, method=method, kind=kind, data=raw)
            return raw if parse is None else parse(raw)

        return record


class _Call:
    """A call as gRPC made it, but for its failures: they name the server."""

    def __init__(self, call: Any, server: str) -> None:
        self._call, self._server = call, server
        self._messages: Any = None

    def __getattr__(self, name: str) -> Any:
        return getattr(self._call, name)

    def __await__(self) -> Generator[Any, Any, Any]:
        try:
            return (yield from self._call.__await__())
        except grpc.aio.AioRpcError as error:
            raise FailedCall(error, self._server) from error

    def __aiter__(self) -> Self:
        self._messages = aiter(self._call)
        return self

    async def __anext__(self) -> Any:
        try:
            return await anext(self._messages)
        except grpc.aio.AioRpcError as error:
            raise FailedCall(error, self._server) from error
