"""How an account gets its first password: with a one-time code that somebody hands over in person.

The first account of all, the owner's, gets its code from a private file on the node's own disk.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path

from sqlalchemy.orm import Session

from libs.core.clock import Clock
from libs.core.errors import FailedPrecondition, Unauthenticated
from libs.core.secret import Secret
from libs.runtime.audit.entry import Event
from libs.runtime.audit.trail import AuditTrail
from libs.runtime.logging import get_logger
from libs.runtime.private_files import write_private
from services.hospital_node.accounts.domain import (
    MAX_FULL_NAME,
    AccountState,
    account_name,
    short_text,
)
from services.hospital_node.accounts.passwords import Passwords, require_good
from services.hospital_node.accounts.sessions import Sessions
from services.hospital_node.accounts.telling import tell
from services.hospital_node.accounts.tokens import Client, Issued, code_hash, new_code
from services.hospital_node.adapters.account_store import OWNERLESS, AccountStore
from services.hospital_node.adapters.transactions import Transactions

log = get_logger(__name__)

OWNER_CODE_LIFETIME = timedelta(hours=24)
INVITATION_LIFETIME = timedelta(hours=72)

_WRONG_CODE = (
    "The code is wrong, was used already, is too old, or the account was given more rights since. Ask for a "
    "new invitation."
)


@dataclass(frozen=True)
class Invitation:
    """A code, shown once, and until when it is good."""

    code: Secret[str]
    expires_at: datetime


class Invitations:
    """Makes codes and takes them, each once. Only hashes of codes are stored."""

    def __init__(
        self,
        *,
        transactions: Transactions,
        trail: AuditTrail,
        passwords: Passwords,
        sessions: Sessions,
        clock: Clock,
        hospital: str,
        owner_code_file: Path,
    ) -> None:
        self._transactions, self._trail, self._clock = transactions, trail, clock
        self._passwords, self._sessions = passwords, sessions
        self._hospital, self._owner_code_file = hospital, owner_code_file

    def make(self, session: Session, account: str) -> Invitation:
        """A new code for the account, within the caller's transaction; an earlier one is worth nothing."""
        return self._make(session, account, INVITATION_LIFETIME)

    async def owner(self) -> str | None:
        """The name of the node's owner; None while it has none."""
        return await self._transactions.run(lambda session: AccountStore(session).owner())

    async def ensure_owner_code(self) -> None:
        """At a start without an owner: a new code in the private file. With an owner: nothing."""
        if await self.owner() is None:
            await self.write_owner_code()

    async def write_owner_code(self) -> Path:
        """A new code in the private file, good for a day and once; earlier ones are worth nothing.

        Without an owner it makes the first account (ClaimNode). With one it gives the owner a new password
        (AcceptInvitation): for an owner who has lost it, and can prove to own the node by its disk.
        """

        def work(session: Session) -> tuple[Invitation, str]:
            owner = AccountStore(session).owner()
            made = self._make(session, OWNERLESS if owner is None else owner, OWNER_CODE_LIFETIME)
            self._append(session, Event("owner_code.made", "system", object=owner or ""))
            return made, owner or ""

        invitation, owner = await self._transactions.run(work)
        path = self._owner_code_file
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        await asyncio.to_thread(write_private, path, invitation.code.expose() + "\n")
        # Where the code is, never the code: logs go to more people than this file.
        log.warning(
            "owner_code_written", file=str(path), owner=owner, valid_until=invitation.expires_at.isoformat()
        )
        return path

    async def claim(
        self, code: str, *, name: str, full_name: str, password: Secret[str], client: Client
    ) -> Issued:
        """Make the node's first account, its owner. Of several at once with one code, one succeeds.

        Unauthenticated for a wrong code, FailedPrecondition once the node has an owner.
        """

        def finish(session: Session, _account: str, hashed: str) -> Issued:
            store = AccountStore(session)
            if store.owner() is not None:
                raise FailedPrecondition("The node has an owner already. Ask them for an invitation.")
            store.add(name=name, full_name=full_name, state=AccountState.ACTIVE, now=self._clock.now())
            store.set_password(name, hashed)
            store.set_owner(name)
            issued = self._sessions.open(session, name, client)
            self._append(session, Event("node.claimed", client.identity, object=name))
            return issued

        account_name(name)
        short_text(full_name, what="full name", limit=MAX_FULL_NAME)
        issued = await self._with_code(
            code, password, finish, is_owners=True, own_words=lambda _session, _account: (name, full_name)
        )
        await asyncio.to_thread(self._owner_code_file.unlink, missing_ok=True)
        return issued

    async def accept(self, code: str, *, password: Secret[str], client: Client) -> Issued:
        """Give the invited account its password and log it in. Unauthenticated for a wrong code."""

        def finish(session: Session, account: str, hashed: str) -> Issued:
            store = AccountStore(session)
            self._sessions.end_all(session, account)
            store.set_password(account, hashed)
            store.set_second_factor(account, b"", step=0)
            store.set_state(account, AccountState.ACTIVE)
            store.forgive_everywhere(account)
            issued = self._sessions.open(session, account, client)
            self._append(session, Event("invitation.accepted", client.identity, object=account))
            return issued

        def own_words(session: Session, account: str) -> tuple[str, ...]:
            return (account, AccountStore(session).get(account).full_name)

        issued = await self._with_code(code, password, finish, is_owners=False, own_words=own_words)
        if await self.owner() == issued.account:
            await asyncio.to_thread(self._owner_code_file.unlink, missing_ok=True)
        return issued

    async def _with_code(
        self,
        code: str,
        password: Secret[str],
        finish: Callable[[Session, str, str], Issued],
        *,
        is_owners: bool,
        own_words: Callable[[Session, str], tuple[str, ...]],
    ) -> Issued:
        """Look at the code, then at the password, hash it, and take the code with what it is good for.

        A password that is not good enough costs nobody their code, and a wrong code no hash.
        """

        def whose(session: Session) -> str:
            account = AccountStore(session).invited(code_hash(code), self._clock.now())
            if account is None or (account == OWNERLESS) is not is_owners:
                raise Unauthenticated(_WRONG_CODE)
            return account

        def look(session: Session) -> tuple[str, ...]:
            return own_words(session, whose(session))

        words = await self._transactions.run(look)
        require_good(password.expose(), own_words=(*words, self._hospital))
        hashed = await self._passwords.hash(password)

        def take(session: Session) -> Issued:
            account = whose(session)
            AccountStore(session).uninvite(account)
            return finish(session, account, hashed)

        return await self._transactions.run(take)

    def _make(self, session: Session, account: str, lifetime: timedelta) -> Invitation:
        code, expires_at = new_code(), self._clock.now() + lifetime
        AccountStore(session).invite(account, code_hash=code_hash(code.expose()), expires_at=expires_at)
        return Invitation(code, expires_at)

    def _append(self, session: Session, event: Event) -> None:
        tell(self._trail, session, event)
