"""What every request passes, in this order; the list that a server uses is this one.

1. identity: which process is this, by its certificate. Without one, nothing else runs.
2. authorisation: may that process, with that token, call this method.
3. errors: whatever the handler raises becomes a status of the catalogue.
4. logging: one event per call, with who, what, how long and how it ended.

Refusals of the first two go through the same catalogue and the same log event (`refusal.refuse`), because
they happen outside of 3 and 4. Theirs, and those of handlers, are told to `on_refusal`: the audit trail.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import grpc

from libs.rpc.access_policy import ACCESS_POLICY, Rule
from libs.rpc.interceptors.authorisation import AuthorisationInterceptor, Grants
from libs.rpc.interceptors.errors import ErrorInterceptor
from libs.rpc.interceptors.identity import IdentityInterceptor
from libs.rpc.interceptors.logging import LoggingInterceptor
from libs.rpc.interceptors.refusal import OnRefusal, nobody_listens
from libs.rpc.token_checks.gate import TokenGate
from libs.rpc.tokens import TokenVerifier
from libs.runtime.audit.refusals import Refusal


def interceptor_chain(
    tokens: TokenGate | TokenVerifier,
    *,
    policy: Mapping[str, Rule] = ACCESS_POLICY,
    grants: Grants | None = None,
    on_refusal: OnRefusal = nobody_listens,
) -> tuple[grpc.aio.ServerInterceptor, ...]:
    """The interceptors of a server, outermost first."""

    def report(refusal: Refusal) -> None:
        # A caller makes up the names of unlisted methods; they must not each be another kind of refusal.
        on_refusal(refusal if refusal.method in policy else replace(refusal, method="an unlisted method"))

    gate = TokenGate(tokens) if isinstance(tokens, TokenVerifier) else tokens
    return (
        IdentityInterceptor(report),
        AuthorisationInterceptor(policy, gate, grants, report),
        ErrorInterceptor(report),
        LoggingInterceptor(),
    )
