"""How the interceptors outside of the error catalogue and the log say no: through both, all the same."""

from __future__ import annotations

from typing import NoReturn

from libs.core.errors import TrefoilError
from libs.rpc.error_catalog import abort
from libs.rpc.interceptors.handlers import Context
from libs.runtime.logging import get_logger

log = get_logger(__name__)


async def refuse(context: Context, error: TrefoilError, *, request_id: str) -> NoReturn:
    """End the call with the error's status and text, and log it."""
    log.warning("call_refused", code=error.code, reason=str(error), peer=context.peer())
    await abort(context, error, request_id=request_id)
