"""Third: whatever the handler raises leaves as a status of the catalogue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from libs.rpc.caller import current_caller
from libs.rpc.error_catalog import abort
from libs.rpc.interceptors.handlers import Context, Handler, Next, wrap


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Maps exceptions to statuses. Cancellation is not an error and passes through."""

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap the handler if there is one."""
        handler = await continuation(handler_call_details)
        return None if handler is None else wrap(handler, _mapped)


async def _mapped(context: Context, proceed: Next) -> Any:
    try:
        return await proceed()
    except grpc.aio.AbortError:
        raise  # the status is set already
    except Exception as error:
        await abort(context, error, request_id=current_caller().request_id)
