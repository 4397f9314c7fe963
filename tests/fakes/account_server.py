"""A node's accounts behind the real server: certificates, tokens, interceptors, policy and database."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from pathlib import Path
from typing import Any

from libs.core.clock import SystemClock
from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2 as pb
from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2_grpc as pb_grpc
from libs.rpc.channel import open_channel
from libs.rpc.dev_ca import issuing_secret
from libs.rpc.identity import Identity, Kind
from libs.rpc.server import RpcServer
from libs.rpc.token_checks.gate import TokenGate
from libs.rpc.tokens import Role, TokenIssuer, TokenVerifier
from libs.runtime.private_files import write_private
from services.hospital_node.account_wiring import node_accounts
from services.hospital_node.accounts.passwords import Passwords
from services.hospital_node.accounts.rpc import AccountService
from services.hospital_node.adapters.tables import AUDIT
from services.hospital_node.adapters.transactions import Transactions
from tests.fakes.accounts import GOOD, OWNER, node_settings
from tests.fakes.audit import unsigned_trail
from tests.fakes.keys import tls_files

ALPHA = Identity(Kind.HOSPITAL, "alpha")
DESK, ATTIC = Identity(Kind.CLIENT, "desk"), Identity(Kind.CLIENT, "attic")


class AccountServer:
    """Stubs with and without tokens, from one client certificate or another."""

    def __init__(self, keys: Path, folder: Path, address: str, stack: AsyncExitStack) -> None:
        self.keys, self.folder, self.address, self._stack = keys, folder, address, stack
        self._files = 0
        self._tokenless: dict[Identity, Any] = {}

    async def stub(self, token: str | None = None, *, client: Identity = DESK) -> Any:
        """AccountService, as `client` with this token."""
        if token is None and client in self._tokenless:
            return self._tokenless[client]
        file: Path | None = None
        if token is not None:
            self._files += 1
            file = self.folder / f"{self._files}.token"
            write_private(file, token)
        channel = open_channel(
            address=self.address, server=ALPHA, tls=tls_files(self.keys, client), token_file=file
        )
        made = pb_grpc.AccountServiceStub(await self._stack.enter_async_context(channel))
        if token is None:
            self._tokenless[client] = made
        return made

    async def claim(self) -> pb.Tokens:
        """The owner's."""
        code = (self.folder / "accounts" / "owner.code").read_text()
        request = pb.ClaimNodeRequest(code=code, name=OWNER, full_name="Olga Owner", password=GOOD)
        answer: pb.ClaimNodeResponse = await (await self.stub()).ClaimNode(request)
        return answer.tokens

    async def join(self, by: Any, name: str, *roles: str) -> pb.Tokens:
        """Invited with the stub `by`, and accepted."""
        invited = await by.InviteUser(pb.InviteUserRequest(name=name, roles=roles))
        request = pb.AcceptInvitationRequest(code=invited.invitation.code, password=GOOD)
        answer: pb.AcceptInvitationResponse = await (await self.stub()).AcceptInvitation(request)
        return answer.tokens

    async def log_in(self, name: str, password: str, *, client: Identity = DESK) -> pb.Tokens:
        request = pb.LogInRequest(name=name, password=password)
        answer: pb.LogInResponse = await (await self.stub(client=client)).LogIn(request)
        return answer.tokens

    def external(self, role: Role, *, issuer: str = "hospital-alpha", subject: str = OWNER) -> str:
        """A token of `trefoil keys token`."""
        made = TokenIssuer(issuing_secret(self.keys, issuer))
        return made.issue(subject=subject, role=role, lifetime=timedelta(hours=1))


@asynccontextmanager
async def account_server(
    keys: Path, folder: Path, *, passwords: Passwords, database: str | None = None
) -> AsyncIterator[AccountServer]:
    """Serves until left. `keys` has hospital alpha and the clients desk and attic."""
    transactions = Transactions(database or f"sqlite:///{folder / 'node.db'}")
    node = node_accounts(
        node_settings(folder),
        transactions=transactions,
        trail=unsigned_trail(AUDIT),
        clock=SystemClock(),
        passwords=passwords,
    )
    await node.accounts.invitations.ensure_owner_code()
    server = RpcServer(
        name="accounts",
        listen="127.0.0.1:0",
        tls=tls_files(keys, ALPHA),
        tokens=TokenGate(TokenVerifier([issuing_secret(keys, "hospital-alpha")]), remote=[node.tokens]),
        grants=node.accounts.sessions.grants,
    )
    service = AccountService(node.accounts)
    server.add(pb_grpc.add_AccountServiceServicer_to_server, service, "trefoil.hospital.v1.AccountService")
    port = await server.start()
    try:
        async with AsyncExitStack() as stack:
            yield AccountServer(keys, folder, f"127.0.0.1:{port}", stack)
    finally:
        await server.stop(grace_s=0)
        node.close()
        transactions.close()
