"""First: which process is calling, by the certificate that TLS has verified."""

from __future__ import annotations

import re
from collections.abc import Awaitable, Callable
from functools import partial
from typing import Any

import grpc
from structlog.contextvars import bound_contextvars

from libs.core.errors import InvalidInput, Unauthenticated
from libs.core.ids import new_id
from libs.rpc.caller import Caller, calling_as
from libs.rpc.error_catalog import REQUEST_ID_KEY
from libs.rpc.identity import Identity
from libs.rpc.interceptors.handlers import Context, Handler, Next, wrap
from libs.rpc.interceptors.refusal import OnRefusal, refuse
from libs.runtime.audit.refusals import Refusal

# Request ids end up in logs and metadata of several services, so their alphabet is small.
_REQUEST_ID = re.compile(r"[A-Za-z0-9._-]{1,64}", re.ASCII)


class IdentityInterceptor(grpc.aio.ServerInterceptor):
    """Sets the current caller, or refuses a certificate that names nobody in this federation."""

    def __init__(self, on_refusal: OnRefusal) -> None:
        self._on_refusal = on_refusal

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler | None:
        """Wrap the handler; it runs with `current_caller()` set."""
        handler = await continuation(handler_call_details)
        identified = partial(_identified, method=handler_call_details.method, on_refusal=self._on_refusal)
        return None if handler is None else wrap(handler, identified)


async def _identified(context: Context, proceed: Next, *, method: str, on_refusal: OnRefusal) -> Any:
    request_id = _request_id(context)
    with bound_contextvars(request_id=request_id, rpc=method):
        try:
            identity = peer_identity(context)
        except Unauthenticated as error:
            refusal = Refusal("a certificate that names nobody here", method, error.code, request_id)
            await refuse(context, error, refusal, on_refusal)
        with bound_contextvars(caller=identity.uri), calling_as(Caller(identity, None, request_id)):
            return await proceed()


def peer_identity(context: Context) -> Identity:
    """The identity in the verified certificate: exactly one URI, and one that this federation would write."""
    uris = [uri.decode(errors="replace") for uri in context.auth_context().get("peer_uri", ())]
    if len(uris) != 1:
        raise Unauthenticated(
            "Your certificate does not have exactly one identity (a URI such as "
            "spiffe://trefoil.local/client/name). Ask the operator of its CA for another."
        )
    try:
        return Identity.parse(uris[0])
    except InvalidInput as error:
        raise Unauthenticated(f"Your certificate names nobody here: {error}") from error


def _request_id(context: Context) -> str:
    """The caller's request id if it sent a harmless one, else a new one."""
    sent = dict(context.invocation_metadata() or ()).get(REQUEST_ID_KEY)
    return sent if isinstance(sent, str) and _REQUEST_ID.fullmatch(sent) else new_id("request")
