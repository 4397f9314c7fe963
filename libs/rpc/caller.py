"""Who is calling, inside a handler."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass, replace

from libs.core.errors import Bug
from libs.rpc.identity import Identity
from libs.rpc.tokens import TokenClaims


@dataclass(frozen=True)
class Caller:
    """Who sent the request that is being handled.

    `identity` comes from the certificate of the connection, never from a field of the message. `token` is set
    exactly when the method's rule asks for a role; it is verified by then.
    """

    identity: Identity
    token: TokenClaims | None
    request_id: str

    @property
    def actor(self) -> str:
        """`spiffe://trefoil.local/client/ada (ada)`; without a token, only the identity."""
        return self.identity.uri if self.token is None else f"{self.identity.uri} ({self.token.subject})"

    def with_token(self, token: TokenClaims | None) -> Caller:
        """The same caller once authorisation has verified its token."""
        return replace(self, token=token)


_caller: ContextVar[Caller | None] = ContextVar("trefoil_caller", default=None)


def current_caller() -> Caller:
    """The caller of the running handler; Bug outside one."""
    caller = _caller.get()
    if caller is None:
        raise Bug("current_caller() was asked for outside an RPC handler")
    return caller


def current_request_id() -> str | None:
    """The id of the request being handled, to be passed on to other services; None outside a handler."""
    caller = _caller.get()
    return None if caller is None else caller.request_id


def current_actor() -> str:
    """Who is calling, as the audit trail names them: identity, and the subject of a token if there is one.

    "system" outside a handler: what a service does by itself.
    """
    caller = _caller.get()
    return "system" if caller is None else caller.actor


@contextmanager
def calling_as(caller: Caller) -> Iterator[None]:
    """Make `caller` the current one. The interceptors do this; so do tests that call a servicer directly."""
    token = _caller.set(caller)
    try:
        yield
    finally:
        _caller.reset(token)
