"""Sessions: opened by a login, kept alive by refresh tokens, ended for every call at once."""

from __future__ import annotations

from datetime import timedelta

from sqlalchemy.orm import Session

from libs.core.clock import Clock
from libs.core.errors import NotFound, PermissionDenied, Unauthenticated
from libs.core.ids import new_id
from libs.rpc.permissions import Permission
from libs.rpc.token_checks.claims import TokenClaims
from libs.runtime.audit.entry import Event, Outcome
from libs.runtime.audit.trail import AuditTrail
from services.hospital_node.accounts.domain import AccountState, Actor
from services.hospital_node.accounts.telling import tell
from services.hospital_node.accounts.tokens import (
    AccessTokens,
    Client,
    Issued,
    new_refresh_token,
    session_of,
    token_hash,
)
from services.hospital_node.adapters.account_store import AccountStore
from services.hospital_node.adapters.session_store import OpenSession, SessionStore
from services.hospital_node.adapters.transactions import Transactions

IDLE = timedelta(hours=12)
LONGEST = timedelta(days=7)
MOST_PER_ACCOUNT = 20
"""One more login ends the oldest session."""

_OVER = "Your session is over. Log in again: trefoil login"


class Sessions:
    """Every method that ends or refuses one writes that into the audit trail, in the same transaction."""

    def __init__(
        self,
        *,
        transactions: Transactions,
        trail: AuditTrail,
        tokens: AccessTokens,
        clock: Clock,
        idle: timedelta = IDLE,
        longest: timedelta = LONGEST,
    ) -> None:
        """A session ends after `idle` without a refresh, and after `longest` whatever is done."""
        self._transactions, self._trail, self._tokens, self._clock = transactions, trail, tokens, clock
        self._idle, self._longest = idle, longest

    def open(self, session: Session, account: str, client: Client) -> Issued:
        """A new session of the account for this certificate, within the caller's transaction."""
        now, store = self._clock.now(), SessionStore(session)
        for oldest in store.of(account)[: -(MOST_PER_ACCOUNT - 1)]:
            store.end(oldest.session_id)
            self._record(session, "session.ended", client.identity, oldest, Outcome.DONE, "too_many")
        opened = OpenSession(
            session_id=new_id("session"),
            account=account,
            certificate=client.thumbprint,
            client=client.identity,
            began_at=now,
            last_used_at=now,
            idle_until=now + self._idle,
            expires_at=now + self._longest,
        )
        store.add(opened)
        AccountStore(session).logged_in(account, now)
        return self._issue(store, opened)

    async def refresh(self, refresh_token: str, client: Client) -> Issued:
        """The next pair of tokens. The one that was given is used up.

        A used one that comes again, or one that comes from another certificate, was stolen from somebody: its
        session ends. Unauthenticated for those and for every other that is worth nothing.
        """
        hashed = token_hash(refresh_token)

        def work(session: Session) -> Issued | None:
            store, now = SessionStore(session), self._clock.now()
            found = store.refresh_token(hashed)
            if found is None:
                return None
            opened, used = found
            theft = _theft(opened, used, client)
            if theft:
                store.end(opened.session_id)
                self._record(session, "session.stolen", client.identity, opened, Outcome.REFUSED, theft)
                return None
            credentials = AccountStore(session).credentials(opened.account)
            active = credentials is not None and credentials.state is AccountState.ACTIVE
            if not opened.live(now) or not active:
                return None
            store.use_refresh_token(hashed)
            store.used(opened.session_id, now=now, idle_until=now + self._idle)
            renewed = store.get(opened.session_id)
            return None if renewed is None else self._issue(store, renewed)

        issued = await self._transactions.run(work)
        if issued is None:
            raise Unauthenticated(_OVER)
        return issued

    async def grants(self, claims: TokenClaims) -> frozenset[Permission]:
        """What the token's account may do at this moment: the `Grants` of the authorisation interceptor.

        Asked of the database at every call, so that an end or a change counts from the next call on.
        Unauthenticated if the session is over, or if another issuer says that somebody has an account here.
        """
        if claims.issuer != self._tokens.issuer:
            raise Unauthenticated("Only the node itself makes tokens of its accounts. Use: trefoil login")

        def work(session: Session) -> frozenset[Permission] | None:
            opened = SessionStore(session).get(session_of(claims))
            if opened is None or not opened.live(self._clock.now()):
                return None
            if (opened.account, opened.certificate) != (claims.subject, claims.certificate):
                return None
            store = AccountStore(session)
            credentials = store.credentials(opened.account)
            if credentials is None or credentials.state is not AccountState.ACTIVE:
                return None
            return store.permissions(opened.account)

        granted = await self._transactions.run(work)
        if granted is None:
            raise Unauthenticated(_OVER)
        return granted

    async def listed(self, actor: Actor, user: str) -> list[OpenSession]:
        """One's own sessions that go on, or those of `user`, which needs the permission to manage users."""
        whose = user or actor.account
        _require_may_see(actor, whose)

        def work(session: Session) -> list[OpenSession]:
            AccountStore(session).get(whose)
            now = self._clock.now()
            return [opened for opened in SessionStore(session).of(whose) if opened.live(now)]

        return await self._transactions.run(work)

    async def end(self, actor: Actor, session_id: str) -> None:
        """End a session of one's own, or of somebody else who is not the owner; done twice it stays ended.

        NotFound for one that the actor may not know of either.
        """

        def work(session: Session) -> None:
            store = SessionStore(session)
            opened = store.get(session_id)
            if opened is None:
                raise NotFound("There is no such session, or it is over. See: trefoil session list")
            if opened.account != actor.account and Permission.USERS_MANAGE not in actor.permissions:
                raise NotFound("There is no such session, or it is over. See: trefoil session list")
            if opened.account != actor.account and AccountStore(session).owner() == opened.account:
                raise PermissionDenied("Nobody ends the sessions of the node's owner but the owner.")
            store.end(session_id)
            self._record(session, "session.ended", actor.text, opened, Outcome.DONE, "asked")

        await self._transactions.run(work)

    def end_all(self, session: Session, account: str, *, but: str = "") -> int:
        """End the account's sessions except `but`, within the caller's transaction; how many those were."""
        return len(SessionStore(session).end_all(account, but=but))

    def _issue(self, store: SessionStore, opened: OpenSession) -> Issued:
        refresh = new_refresh_token()
        store.add_refresh_token(token_hash(refresh.expose()), opened.session_id)
        access, expires_at = self._tokens.issue(
            account=opened.account, session_id=opened.session_id, certificate=opened.certificate
        )
        return Issued(
            access_token=access,
            refresh_token=refresh,
            access_expires_at=expires_at,
            refresh_expires_at=min(opened.idle_until, opened.expires_at),
            session_id=opened.session_id,
            account=opened.account,
        )

    def _record(
        self,
        session: Session,
        action: str,
        actor: str,
        opened: OpenSession,
        outcome: Outcome,
        reason: str,
    ) -> None:
        details = {"session": opened.session_id, "reason": reason}
        event = Event(action, actor, object=opened.account, outcome=outcome, details=details)
        tell(self._trail, session, event)


def _theft(opened: OpenSession, used: bool, client: Client) -> str:
    """What shows that a refresh token was stolen; "" for nothing."""
    if used:
        return "reused"
    return "" if opened.certificate == client.thumbprint else "other_certificate"


def _require_may_see(actor: Actor, whose: str) -> None:
    if not whose:
        raise NotFound("Your token is not of an account of this node, so it has no sessions. Name a user.")
    if whose != actor.account and Permission.USERS_MANAGE not in actor.permissions:
        raise PermissionDenied("The sessions of others are for who manages users. Leave the name out.")
