"""How the interceptors outside of the error catalogue and the log say no: through both, all the same."""

from __future__ import annotations

from collections.abc import Callable
from typing import NoReturn

from libs.core.errors import TrefoilError
from libs.rpc.error_catalog import abort
from libs.rpc.interceptors.handlers import Context
from libs.runtime.audit.refusals import Refusal
from libs.runtime.logging import get_logger

log = get_logger(__name__)

OnRefusal = Callable[[Refusal], None]
"""Told of every refused call, for the audit trail. Must not block."""


def nobody_listens(_refusal: Refusal) -> None:
    """For servers that keep no audit trail."""


async def refuse(context: Context, error: TrefoilError, refusal: Refusal, on_refusal: OnRefusal) -> NoReturn:
    """End the call with the error's status and text; log it and hand it to the audit trail."""
    on_refusal(refusal)
    log.warning("call_refused", code=error.code, reason=str(error), peer=context.peer())
    await abort(context, error, request_id=refusal.request_id)
