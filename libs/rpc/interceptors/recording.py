"""For tests only: copies every received message, as raw bytes, to a Recorder before anything else sees it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any, cast

import grpc

from libs.rpc.interceptors.handlers import Handler
from libs.rpc.recorder import REQUEST, STREAM, UNARY, Recorder


class RecordingInterceptor(grpc.aio.ServerInterceptor):
    """Goes in front of the chain when a server has a Recorder."""

    def __init__(self, recorder: Recorder) -> None:
        self._recorder = recorder

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """The same handler, with its deserialiser keeping a copy."""
        handler = await continuation(handler_call_details)
        if handler is None:
            return None
        return cast(Handler, _Recorded(handler, self._recorder, handler_call_details.method))


class _Recorded:
    """A handler that differs from another in its deserialiser only."""

    def __init__(self, handler: Handler, recorder: Recorder, method: str) -> None:
        self._handler, self._recorder, self._method = handler, recorder, method

    def __getattr__(self, name: str) -> Any:
        return getattr(self._handler, name)

    def request_deserializer(self, raw: bytes) -> Any:
        """Record, then parse as the handler would."""
        kind = STREAM if self._handler.request_streaming else UNARY
        self._recorder.record(direction=REQUEST, method=self._method, kind=kind, data=raw)
        parse = self._handler.request_deserializer
        return raw if parse is None else parse(raw)
