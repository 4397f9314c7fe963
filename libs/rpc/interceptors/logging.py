"""Fourth: one event per call. The request id, method and caller are bound by the identity interceptor."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

import grpc

from libs.core.errors import Bug, TrefoilError
from libs.rpc.caller import current_caller
from libs.rpc.error_catalog import public_error
from libs.rpc.interceptors.handlers import Context, Handler, Next, parsing_inside, wrap
from libs.runtime.logging import get_logger

log = get_logger(__name__)


class LoggingInterceptor(grpc.aio.ServerInterceptor):
    """Logs how each call ended.

    It is the innermost, so it sees the exception itself and not its public text.
    """

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap the handler if there is one.

        Its messages are parsed in here, so that malformed ones are logged.
        """
        handler = await continuation(handler_call_details)
        return None if handler is None else wrap(parsing_inside(handler), _logged)


async def _logged(context: Context, proceed: Next) -> Any:
    began = time.monotonic()
    try:
        response = await proceed()
    except asyncio.CancelledError:
        log.info("call_cancelled", duration_ms=_ms_since(began))
        raise
    except grpc.aio.AbortError:
        log.warning("call_aborted", duration_ms=_ms_since(began))
        raise
    except Exception as error:
        _log_failure(error, duration_ms=_ms_since(began))
        raise
    log.info("call_completed", duration_ms=_ms_since(began))
    return response


def _log_failure(error: Exception, *, duration_ms: float) -> None:
    """Expected errors in one line; a bug with its traceback, found again by the request id."""
    public = public_error(error, request_id=current_caller().request_id)
    if isinstance(error, TrefoilError) and not isinstance(error, Bug):
        log.warning("call_failed", code=public.code, reason=public.text, duration_ms=duration_ms)
    else:
        log.error("call_failed", code=public.code, duration_ms=duration_ms, exc_info=error)


def _ms_since(began: float) -> float:
    return round((time.monotonic() - began) * 1000, 3)
