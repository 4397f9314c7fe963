"""Second: may this process, with this token, call this method."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Mapping
from functools import partial
from typing import Any

import grpc

from libs.core.errors import PermissionDenied, TrefoilError, Unauthenticated
from libs.rpc.access_policy import Rule
from libs.rpc.caller import calling_as, current_caller
from libs.rpc.identity import Kind
from libs.rpc.interceptors.handlers import Context, Handler, Next, refusing, wrap
from libs.rpc.interceptors.refusal import OnRefusal, nobody_listens, refuse
from libs.rpc.permissions import Permission
from libs.rpc.token_checks.gate import TokenGate
from libs.rpc.tokens import Role, TokenClaims
from libs.runtime.audit.refusals import Refusal

_BEARER = "bearer "


Grants = Callable[[TokenClaims], Awaitable[frozenset[Permission]]]
"""What an account may do at this moment. Raises Unauthenticated when its session is over."""


class AuthorisationInterceptor(grpc.aio.ServerInterceptor):
    """Lets a call pass if the method's rule does. A method without a rule is refused, served or not."""

    def __init__(
        self,
        policy: Mapping[str, Rule],
        tokens: TokenGate,
        grants: Grants | None = None,
        on_refusal: OnRefusal = nobody_listens,
    ) -> None:
        """`grants` are the node's accounts; without them the role `staff` opens nothing."""
        self._policy, self._tokens, self._grants, self._on_refusal = policy, tokens, grants, on_refusal

    async def intercept_service(
        self,
        continuation: Callable[[grpc.HandlerCallDetails], Awaitable[Handler | None]],
        handler_call_details: grpc.HandlerCallDetails,
    ) -> Handler:
        """Wrap the handler with the method's rule; a method that is unlisted or not served gets a refusal."""
        method = handler_call_details.method
        handler = await continuation(handler_call_details)
        rule = self._policy.get(method)
        if handler is None or rule is None:
            handler, rule = refusing(_NOT_OFFERED), _NOBODY
        return wrap(handler, partial(self._authorised, rule=rule, method=method))

    async def _authorised(self, context: Context, proceed: Next, *, rule: Rule, method: str) -> Any:
        caller = current_caller()
        try:
            token = await self._check(context, caller.identity.kind, rule)
        except TrefoilError as error:
            refusal = Refusal(caller.actor, method, error.code, caller.request_id)
            await refuse(context, error, refusal, self._on_refusal)
        with calling_as(caller.with_token(token)):
            return await proceed()

    async def _check(self, context: Context, kind: Kind, rule: Rule) -> TokenClaims | None:
        """The verified token, or None where the certificate is enough; raises for everybody else.

        Unavailable if a remote service has to be asked about the token and does not answer.
        """
        if not rule.allowed:
            raise _NOT_OFFERED
        if not rule.admits_kind(kind):
            raise PermissionDenied(
                f"The certificate of a {kind.value} does not allow this call. Use one that was made for it."
            )
        roles = rule.roles_for(kind)
        if not roles:
            return None
        token = await self._tokens.check(_bearer_token(context), certificate=_certificate(context))
        if token.role not in roles:
            needed = " or ".join(sorted(role.value for role in roles))
            raise PermissionDenied(
                f"This call needs a token with the role {needed}; yours says {token.role.value}."
            )
        if token.role is Role.STAFF:
            await self._require_granted(token, rule.permission)
        await self._tokens.spend(token)  # last: a call that is refused uses up nothing
        return token

    async def _require_granted(self, token: TokenClaims, permission: Permission | None) -> None:
        granted = frozenset[Permission]() if self._grants is None else await self._grants(token)
        if permission is None or permission not in granted:
            raise PermissionDenied(
                f"Your account lacks the permission {permission}. Ask an administrator of your hospital."
            )


_NOBODY = Rule(frozenset())
_NOT_OFFERED = PermissionDenied(
    "This service does not offer that method. Check the address and that both sides run the same release."
)


def _certificate(context: Context) -> bytes | None:
    """The certificate that the caller proved to hold, in PEM."""
    values = list(context.auth_context().get("x509_pem_cert", ()))
    return values[0] if len(values) == 1 else None


def _bearer_token(context: Context) -> str:
    """The one token in the call's metadata; Unauthenticated if there is none, or several to choose from."""
    values = [value for key, value in context.invocation_metadata() or () if key == "authorization"]
    if not values:
        raise Unauthenticated("This call needs a token. Get one with: trefoil keys token")
    value = values[0]
    if len(values) > 1 or not isinstance(value, str) or not value.lower().startswith(_BEARER):
        raise Unauthenticated("The call's authorization metadata must be one text: Bearer <token>.")
    return value[len(_BEARER) :]
