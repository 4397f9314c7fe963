"""Who is asking, looked up in the transaction that does what they ask."""

from __future__ import annotations

from sqlalchemy.orm import Session

from libs.core.errors import FailedPrecondition, Unauthenticated
from libs.rpc.caller import Caller
from libs.rpc.permissions import BUILT_IN_ROLES
from libs.rpc.token_checks.claims import Role
from services.hospital_node.accounts.domain import AccountState, Actor
from services.hospital_node.adapters.account_store import AccountStore


def actor_of(session: Session, caller: Caller) -> Actor:
    """The actor with what they may do at this moment, not when the call was let in.

    Somebody with a token of another issuer has the permissions of its role and no account.
    """
    token = caller.token
    if token is None:
        return Actor(caller.actor, "", frozenset())
    if token.role is not Role.STAFF:
        return Actor(caller.actor, "", BUILT_IN_ROLES.get(token.role, frozenset()))
    store = AccountStore(session)
    credentials = store.credentials(token.subject)
    if credentials is None or credentials.state is not AccountState.ACTIVE:
        raise Unauthenticated("Your account cannot be used any more. Ask an administrator of your hospital.")
    return Actor(caller.actor, token.subject, store.permissions(token.subject))


def require_account(actor: Actor) -> str:
    """The actor's account; FailedPrecondition for somebody who has none here."""
    if not actor.account:
        raise FailedPrecondition(
            "Your token is of another issuer, and this is about accounts of the node. Log in with: "
            "trefoil login"
        )
    return actor.account
