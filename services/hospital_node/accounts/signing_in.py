"""Logging in, and saying one's own password once more before something grave.

Whatever is wrong (the name, the password, the second factor, a lock, a disabled account), the answer is the
same and takes the same time: one hash is always computed, of the account or of nobody's. The trail says
which it was.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

from sqlalchemy.orm import Session

from libs.core.clock import Clock
from libs.core.errors import PermissionDenied, Unauthenticated
from libs.core.secret import Secret
from libs.runtime.audit.entry import Event, Outcome
from libs.runtime.audit.trail import AuditTrail
from services.hospital_node.accounts.attempts import (
    ALL_NAMES,
    ALLOWED,
    ALLOWED_FOR_ALL_NAMES,
    Attempts,
    attempt_name,
)
from services.hospital_node.accounts.domain import AccountState, Actor
from services.hospital_node.accounts.passwords import Passwords
from services.hospital_node.accounts.second_factor import SecondFactors
from services.hospital_node.accounts.sessions import Sessions
from services.hospital_node.accounts.telling import tell
from services.hospital_node.accounts.tokens import Client, Issued
from services.hospital_node.accounts.turnstile import Turnstile
from services.hospital_node.adapters.account_store import AccountStore, Credentials
from services.hospital_node.adapters.transactions import Transactions

WRONG = (
    "The name, the password or the code of the second factor is wrong, or there were too many wrong "
    "attempts. Check them and try again; after ten wrong attempts wait first, up to an hour."
)


@dataclass(frozen=True)
class _Attempt:
    """One try, counted as a wrong one before its password is looked at: tries at once count too."""

    counted_as: str
    credentials: Credentials | None
    locked: bool

    @property
    def hash(self) -> str:
        """What the password is compared with; "" for nobody's."""
        usable = self.credentials is not None and self.credentials.state is AccountState.ACTIVE
        return self.credentials.password_hash if usable and self.credentials and not self.locked else ""

    def reason(self, *, password_right: bool) -> str:
        """For the trail: why it was refused."""
        if self.credentials is None:
            return "unknown_name"
        if self.locked:
            return "locked"
        if self.credentials.state is not AccountState.ACTIVE:
            return self.credentials.state.value
        return "wrong_code" if password_right else "wrong_password"


class SigningIn:
    """Logs people in. Cost: one Argon2id hash and two transactions, whether it works or not.

    A few at a time, and so many waiting: of all that other calls wait for, logins hold a small part.
    """

    def __init__(
        self,
        *,
        transactions: Transactions,
        trail: AuditTrail,
        passwords: Passwords,
        factors: SecondFactors,
        sessions: Sessions,
        clock: Clock,
    ) -> None:
        self._transactions, self._trail, self._passwords = transactions, trail, passwords
        self._factors, self._sessions, self._clock = factors, sessions, clock
        self._turnstile = Turnstile()

    async def log_in(self, name: str, password: Secret[str], code: str, client: Client) -> Issued:
        """A new session. Unauthenticated, always with the same text, if anything is wrong.

        Unavailable when too many people log in at once.
        """
        async with self._turnstile.passed(client.identity):
            return await self._log_in(name, password, code, client)

    async def _log_in(self, name: str, password: Secret[str], code: str, client: Client) -> Issued:
        attempt, right = await self._tried(name, password, client)
        fresh_hash = await self._rehashed(attempt, password) if right else ""

        def work(session: Session) -> Issued | None:
            if not self._settle(session, attempt, right, code, client):
                return None
            if fresh_hash:
                AccountStore(session).set_password(name, fresh_hash)
            issued = self._sessions.open(session, name, client)
            details = {"session": issued.session_id}
            self._append(session, Event("login.accepted", client.identity, object=name, details=details))
            return issued

        issued = await self._transactions.run(work)
        if issued is None:
            raise Unauthenticated(WRONG)
        return issued

    async def confirm(
        self, actor: Actor, password: Secret[str], client: Client, *, code: str | None = None
    ) -> Credentials:
        """The credentials of who is logged in and has said the password once more, and the code if asked for.

        PermissionDenied if one is wrong or locked. Wrong ones count as wrong logins do.
        """
        attempt, right = await self._tried(actor.account, password, client)

        def work(session: Session) -> Credentials | None:
            if not self._settle(session, attempt, right, code, client):
                return None
            return AccountStore(session).credentials(actor.account)

        credentials = await self._transactions.run(work)
        if credentials is None:
            raise PermissionDenied(
                "The password or the code of the second factor is wrong, or there were too many wrong "
                "attempts. Check them and try again; after ten wrong attempts wait first, up to an hour."
            )
        return credentials

    async def _tried(self, name: str, password: Secret[str], client: Client) -> tuple[_Attempt, bool]:
        attempt = await self._transactions.run(lambda session: self._begun(session, name, client))
        return attempt, await self._passwords.verify(password, attempt.hash)

    def _begun(self, session: Session, name: str, client: Client) -> _Attempt:
        """Count the attempt and read what it is compared with. A locked one does not count again."""
        store, now, key = AccountStore(session), self._clock.now(), attempt_name(name)
        known = store.credentials(name)
        locked = _locked(store.attempts(key, client.identity), now, allowed=ALLOWED) or _locked(
            store.attempts(ALL_NAMES, client.identity), now, allowed=ALLOWED_FOR_ALL_NAMES
        )
        if not locked:
            store.count_attempt(key, client.identity, now)
            store.count_attempt(ALL_NAMES, client.identity, now)
        return _Attempt(key, known, locked)

    def _settle(
        self, session: Session, attempt: _Attempt, password_right: bool, code: str | None, client: Client
    ) -> bool:
        """Whether it was right after all, by what the account is now. A wrong one is told to the trail.

        `code` is None where no second factor is asked for.
        """
        known = attempt.credentials
        if password_right and known is not None:
            store = AccountStore(session)
            current = store.credentials(known.name)
            unchanged = current is not None and (current.state, current.password_hash) == (
                known.state,
                known.password_hash,
            )
            if unchanged and (code is None or self._code_accepted(store, known.name, code)):
                store.forgive(attempt.counted_as, client.identity)
                return True
        self._refused(session, attempt, password_right, client)
        return False

    def _code_accepted(self, store: AccountStore, name: str, code: str) -> bool:
        """Whether the account needs no second factor, or this is its code. The code is used up."""
        current = store.credentials(name)
        if current is None or not current.second_factor:
            return current is not None
        step = self._factors.accepted_step(
            current.second_factor, name, code, after_step=current.last_code_step, now=self._clock.now()
        )
        if step is None:
            return False
        store.use_code(name, step)
        return True

    def _refused(self, session: Session, attempt: _Attempt, password_right: bool, client: Client) -> None:
        # Names that no account has stay out of the trail: people type their passwords there.
        name = attempt.credentials.name if attempt.credentials is not None else ""
        details = {"reason": attempt.reason(password_right=password_right)}
        refused = Outcome.REFUSED
        self._append(
            session, Event("login.refused", client.identity, object=name, outcome=refused, details=details)
        )
        made = AccountStore(session).attempts(attempt.counted_as, client.identity)
        until = None if made is None or attempt.locked else made.locked_until()
        if until is not None and made is not None:
            details = {"until": until.isoformat(timespec="seconds"), "attempts": str(made.count)}
            self._append(session, Event("login.locked", client.identity, object=name, details=details))

    async def _rehashed(self, attempt: _Attempt, password: Secret[str]) -> str:
        """A hash with today's parameters where the stored one has others; else ""."""
        return await self._passwords.hash(password) if self._passwords.outdated(attempt.hash) else ""

    def _append(self, session: Session, event: Event) -> None:
        tell(self._trail, session, event)


def _locked(attempts: Attempts | None, now: datetime, *, allowed: int) -> bool:
    return attempts is not None and attempts.locked(now, allowed=allowed)
