"""Third: whatever the handler raises leaves as a status of the catalogue."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc

from libs.core.errors import PermissionDenied, Unauthenticated
from libs.rpc.caller import current_caller
from libs.rpc.error_catalog import abort
from libs.rpc.interceptors.handlers import Context, Handler, Next, wrap
from libs.rpc.interceptors.refusal import OnRefusal
from libs.runtime.audit.refusals import Refusal


class ErrorInterceptor(grpc.aio.ServerInterceptor):
    """Maps exceptions to statuses. Cancellation is not an error and passes through.

    A handler that says "you may not" refuses the call like the interceptors before it.
    """

    def __init__(self, on_refusal: OnRefusal) -> None:
        self._on_refusal = on_refusal

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap the handler if there is one."""
        handler = await continuation(handler_call_details)
        mapped = partial(_mapped, method=handler_call_details.method, on_refusal=self._on_refusal)
        return None if handler is None else wrap(handler, mapped)


async def _mapped(context: Context, proceed: Next, *, method: str, on_refusal: OnRefusal) -> Any:
    try:
        return await proceed()
    except grpc.aio.AbortError:
        raise  # the status is set already
    except Exception as error:
        caller = current_caller()
        if isinstance(error, PermissionDenied | Unauthenticated):
            on_refusal(Refusal(caller.actor, method, error.code, caller.request_id))
        await abort(context, error, request_id=caller.request_id)
