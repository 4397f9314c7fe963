"""The accounts of a node on a database, with hashes that cost little and a clock that tests turn."""

from __future__ import annotations

import json
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

from sqlalchemy import text
from sqlalchemy.orm import Session

from libs.core.secret import Secret
from libs.rpc.caller import Caller
from libs.rpc.identity import Identity, Kind
from libs.rpc.settings import TlsSettings
from libs.rpc.tokens import Role, TokenClaims
from services.hospital_node.account_wiring import NodeAccounts, node_accounts
from services.hospital_node.accounts.actors import actor_of
from services.hospital_node.accounts.domain import Actor
from services.hospital_node.accounts.passwords import Passwords
from services.hospital_node.accounts.tokens import Client, Issued
from services.hospital_node.adapters.tables import AUDIT
from services.hospital_node.adapters.transactions import Transactions
from services.hospital_node.settings import CoordinatorSettings, HospitalSettings
from tests.fakes.audit import unsigned_trail

GOOD = "violet harbour lantern"
OTHER = "granite tulip bicycle"
OWNER = "olga"
DESK = Client("spiffe://trefoil.local/client/desk", "d" * 43)
ATTIC = Client("spiffe://trefoil.local/client/attic", "a" * 43)

T = TypeVar("T")


class HandClock:
    """Moves when told to."""

    def __init__(self) -> None:
        self.moment = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)

    def now(self) -> datetime:
        return self.moment

    def monotonic_s(self) -> float:
        return self.moment.timestamp()

    def turn(self, **by: float) -> None:
        self.moment += timedelta(**by)


def cheap_passwords(**options: Any) -> Passwords:
    """Argon2id with the smallest parameters that there are."""
    return Passwords(**{"memory_kib": 8, "passes": 1, **options})


def node_settings(folder: Path) -> HospitalSettings:
    """What accounts need of a node's settings."""
    return HospitalSettings(
        name="alpha",
        listen="127.0.0.1:0",
        tls=TlsSettings(certificate=folder, key=folder, ca=folder),
        token_secrets=(),
        coordinator=CoordinatorSettings(address="127.0.0.1:1"),
        worker_token=folder / "worker.token",
        data_roots=(folder,),
        accounts_dir=folder / "accounts",
    )


@dataclass(frozen=True)
class Told:
    """An entry of the trail."""

    action: str
    object: str
    outcome: str
    details: dict[str, Any]


class AccountRig:
    """Claims, invites and logs people in, as the RPCs do."""

    def __init__(self, transactions: Transactions, folder: Path, **passwords: Any) -> None:
        self.transactions, self.clock = transactions, HandClock()
        self.settings = node_settings(folder)
        self.passwords = cheap_passwords(**passwords)
        self.node: NodeAccounts = self._made()
        self.accounts = self.node.accounts
        self.code_file = self.settings.accounts_dir / "owner.code"

    def restarted(self, passwords: Passwords) -> AccountRig:
        """The same node with other parameters for passwords."""
        self.passwords = passwords
        self.node = self._made()
        self.accounts = self.node.accounts
        return self

    def _made(self) -> NodeAccounts:
        return node_accounts(
            self.settings,
            transactions=self.transactions,
            trail=unsigned_trail(AUDIT),
            clock=self.clock,
            passwords=self.passwords,
        )

    async def claim(self, name: str = OWNER, *, code: str | None = None, client: Client = DESK) -> Issued:
        """The owner."""
        if code is None:
            await self.accounts.invitations.ensure_owner_code()
            code = self.code_file.read_text()
        return await self.accounts.invitations.claim(
            code, name=name, full_name="Olga Owner", password=Secret(GOOD), client=client
        )

    async def invite(self, name: str, *roles: str, groups: tuple[str, ...] = (), by: str = OWNER) -> str:
        """The code."""
        _, invitation = await self.as_actor(
            by,
            self.accounts.users.invite,
            name=name,
            full_name=f"{name.title()} Surname",
            roles=roles,
            groups=groups,
        )
        return str(invitation.code.expose())

    async def join(
        self, name: str, *roles: str, groups: tuple[str, ...] = (), client: Client = DESK
    ) -> Issued:
        """Invited by the owner, and accepted."""
        code = await self.invite(name, *roles, groups=groups)
        return await self.accept(code, client=client)

    async def accept(self, code: str, *, password: str = GOOD, client: Client = DESK) -> Issued:
        return await self.accounts.invitations.accept(code, password=Secret(password), client=client)

    async def log_in(
        self, name: str = OWNER, password: str = GOOD, code: str = "", *, client: Client = DESK
    ) -> Issued:
        return await self.accounts.signing_in.log_in(name, Secret(password), code, client)

    async def as_actor(self, actor: str, method: Any, /, **arguments: Any) -> Any:
        """A method that works in a transaction, as somebody with an account."""
        return await self.transactions.run(lambda db: method(db, self._actor(db, actor), **arguments))

    async def actor(self, name: str) -> Actor:
        return await self.transactions.run(lambda session: self._actor(session, name))

    def _actor(self, session: Session, name: str) -> Actor:
        identity = Identity(Kind.CLIENT, "desk")
        claims = TokenClaims(name, Role.STAFF, "", "", self.clock.now(), "session.token")
        return actor_of(session, Caller(identity, claims, "request"))

    async def claims(self, issued: Issued, **changed: Any) -> TokenClaims:
        """What the node reads in an access token that it made, with fields changed."""
        return replace(await self.node.tokens.check(issued.access_token.expose()), **changed)

    async def works(self, issued: Issued) -> bool:
        """Whether a call with the access token would be let in."""
        from libs.core.errors import Unauthenticated

        try:
            await self.accounts.sessions.grants(await self.claims(issued))
        except Unauthenticated:
            return False
        return True

    def told(self) -> list[Told]:
        """The trail, oldest first."""
        query = text("SELECT action, object, outcome, details FROM audit_entries ORDER BY sequence")
        with self.transactions.engine.connect() as connection:
            rows = connection.execute(query).all()
        return [
            Told(action, subject, outcome, json.loads(details)) for action, subject, outcome, details in rows
        ]

    def stored(self) -> str:
        """Everything in the database, as text."""
        from services.hospital_node.adapters.tables import Base

        with self.transactions.engine.connect() as connection:
            return str([connection.execute(table.select()).all() for table in Base.metadata.sorted_tables])
