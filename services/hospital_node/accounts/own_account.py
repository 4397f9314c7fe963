"""What everybody does with their own account: another password, a second factor."""

from __future__ import annotations

from sqlalchemy.orm import Session

from libs.core.clock import Clock
from libs.core.errors import FailedPrecondition, PermissionDenied
from libs.core.secret import Secret
from libs.runtime.audit.entry import Event
from libs.runtime.audit.trail import AuditTrail
from services.hospital_node.accounts.actors import require_account
from services.hospital_node.accounts.domain import Actor
from services.hospital_node.accounts.passwords import Passwords, require_good
from services.hospital_node.accounts.second_factor import SecondFactors
from services.hospital_node.accounts.sessions import Sessions
from services.hospital_node.accounts.signing_in import SigningIn
from services.hospital_node.accounts.telling import tell
from services.hospital_node.accounts.tokens import Client
from services.hospital_node.adapters.account_store import AccountStore
from services.hospital_node.adapters.transactions import Transactions

_WRONG_CODE = "The code is wrong. Take the next one that your app shows, and check the clock of its device."


class OwnAccount:
    """Each method is about the actor's own account; FailedPrecondition for somebody who has none here."""

    def __init__(
        self,
        *,
        transactions: Transactions,
        trail: AuditTrail,
        signing_in: SigningIn,
        passwords: Passwords,
        factors: SecondFactors,
        sessions: Sessions,
        clock: Clock,
        hospital: str,
    ) -> None:
        self._transactions, self._trail, self._clock, self._hospital = transactions, trail, clock, hospital
        self._signing_in, self._passwords = signing_in, passwords
        self._factors, self._sessions = factors, sessions

    async def change_password(
        self, actor: Actor, *, old: Secret[str], new: Secret[str], client: Client, session_id: str
    ) -> None:
        """Another password; every other session of the account ends."""
        name = require_account(actor)
        await self._signing_in.confirm(actor, old, client)
        account = await self._transactions.run(lambda session: AccountStore(session).get(name))
        require_good(new.expose(), own_words=(name, account.full_name, self._hospital))
        hashed = await self._passwords.hash(new)

        def work(session: Session) -> None:
            AccountStore(session).set_password(name, hashed)
            ended = self._sessions.end_all(session, name, but=session_id)
            details = {"sessions_ended": ended}
            self._append(session, Event("password.changed", actor.text, object=name, details=details))

        await self._transactions.run(work)

    async def begin_second_factor(self, actor: Actor, password: Secret[str], client: Client) -> Secret[str]:
        """The `otpauth://` URI of a new second factor, which counts once it is confirmed."""
        name = require_account(actor)
        confirmed = await self._signing_in.confirm(actor, password, client)
        if confirmed.second_factor:
            raise FailedPrecondition(
                "Your account has a second factor. Remove it first: trefoil user second-factor --remove"
            )
        sealed, uri = self._factors.new(name)
        await self._transactions.run(
            lambda session: AccountStore(session).set_pending_second_factor(name, sealed)
        )
        return uri

    async def confirm_second_factor(self, actor: Actor, code: str) -> None:
        """From now on logins need a code. PermissionDenied for a wrong code."""
        name = require_account(actor)

        def work(session: Session) -> None:
            store = AccountStore(session)
            current = store.credentials(name)
            if current is None or not current.pending_second_factor:
                raise FailedPrecondition("No second factor was begun. Begin: trefoil user second-factor")
            pending, now = current.pending_second_factor, self._clock.now()
            step = self._factors.accepted_step(pending, name, code, after_step=0, now=now)
            if step is None:
                raise PermissionDenied(_WRONG_CODE)
            store.set_second_factor(name, pending, step=step)
            self._append(session, Event("second_factor.added", actor.text, object=name))

        await self._transactions.run(work)

    async def remove_second_factor(
        self, actor: Actor, *, password: Secret[str], code: str, client: Client
    ) -> None:
        """Logins need the password alone. Needs both once more; PermissionDenied if one is wrong."""
        name = require_account(actor)
        confirmed = await self._signing_in.confirm(actor, password, client, code=code)
        if not confirmed.second_factor:
            raise FailedPrecondition("Your account has no second factor.")

        def work(session: Session) -> None:
            AccountStore(session).set_second_factor(name, b"", step=0)
            self._append(session, Event("second_factor.removed", actor.text, object=name))

        await self._transactions.run(work)

    def _append(self, session: Session, event: Event) -> None:
        tell(self._trail, session, event)
