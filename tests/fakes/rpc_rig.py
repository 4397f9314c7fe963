"""A party server with scripted answers, real certificates and real sockets, and channels to it."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
from grpc import aio

from libs.rpc._generated.trefoil.party.v1 import party_pb2 as pb
from libs.rpc._generated.trefoil.party.v1 import party_pb2_grpc as pb_grpc
from libs.rpc.caller import Caller, current_caller
from libs.rpc.channel import open_channel
from libs.rpc.dev_ca import issuing_secret
from libs.rpc.identity import COORDINATOR, Identity, Kind, TlsFiles, party_identity
from libs.rpc.recorder import Recorder
from libs.rpc.server import RpcServer
from libs.rpc.token_checks.gate import TokenGate
from libs.rpc.tokens import Role, TokenIssuer, TokenVerifier
from libs.runtime.private_files import write_private
from tests.fakes.keys import tls_files

PARTY = party_identity(0)
HOSPITAL = Identity(Kind.HOSPITAL, "alpha")
PARTY_SERVICE = "trefoil.party.v1.PartyService"
CLIENT = Identity(Kind.CLIENT, "dana")


Handler = Callable[..., Any]


@dataclass
class ScriptedParty(pb_grpc.PartyServiceServicer):
    """Serves one method of each kind; each test says what they do. Keeps the callers it saw."""

    on_call: Handler | None = None
    callers: list[Caller] = field(default_factory=list)

    async def OpenRound(self, request: pb.OpenRoundRequest, context: Any) -> pb.OpenRoundResponse:
        await self._called(request, context)
        return pb.OpenRoundResponse()

    async def PutShares(self, request_iterator: AsyncIterator[Any], context: Any) -> pb.PutSharesResponse:
        chunks = [message async for message in request_iterator]
        await self._called(chunks, context)
        return pb.PutSharesResponse(already_stored=len(chunks) > 1)

    async def GetShares(self, request: Any, context: Any) -> AsyncIterator[pb.GetSharesResponse]:
        yield pb.GetSharesResponse(chunk=b"first")
        await self._called(request, context)
        yield pb.GetSharesResponse(chunk=b"second")

    async def Predict(self, request_iterator: Any, context: Any) -> None:
        """In the read/write style."""
        first = await context.read()
        await context.write(pb.PredictResponse(output_share_chunk=first.masked_input_chunk))
        await self._called(first, context)

    async def _called(self, request: Any, context: Any) -> None:
        self.callers.append(current_caller())
        if self.on_call is not None:
            await self.on_call(request, context)


class Rig:
    """Starts servers and opens channels; closes them all at the end of a test."""

    def __init__(self, keys: Path, folder: Path) -> None:
        self.keys, self.folder = keys, folder
        self.party = ScriptedParty()
        self.stack = AsyncExitStack()
        self.server: RpcServer | None = None
        self.address = ""
        self.token_files: list[Path] = []

    async def serve(
        self,
        *,
        identity: Identity = PARTY,
        keys: Path | None = None,
        tls: TlsFiles | None = None,
        listen: str = "127.0.0.1:0",
        reflection: bool = False,
        recorder: Recorder | None = None,
        also: Callable[[Any, aio.Server], None] | None = None,
        tokens: TokenGate | None = None,
    ) -> str:
        """Start a server with the scripted party; its address."""
        self.server = RpcServer(
            name="test",
            listen=listen,
            tls=tls or tls_files(keys or self.keys, identity),
            tokens=tokens or TokenVerifier([issuing_secret(self.keys, "federation")]),
            reflection=reflection,
            recorder=recorder,
        )
        self.server.add(
            pb_grpc.add_PartyServiceServicer_to_server, self.party, "trefoil.party.v1.PartyService"
        )
        if also is not None:
            self.server.add(also, object(), "test.Extra")
        port = await self.server.start()
        server = self.server
        self.stack.push_async_callback(lambda: server.stop(grace_s=0))
        self.address = f"127.0.0.1:{port}"
        return self.address

    async def channel(
        self,
        identity: Identity = COORDINATOR,
        *,
        server: Identity = PARTY,
        keys: Path | None = None,
        tls: TlsFiles | None = None,
        token: str | None = None,
        recorder: Recorder | None = None,
    ) -> aio.Channel:
        token_file: Path | None = None
        if token is not None:
            token_file = self.folder / f"{len(self.token_files)}.token"
            self.token_files.append(token_file)
            write_private(token_file, token)
        channel = open_channel(
            address=self.address,
            server=server,
            tls=tls or tls_files(keys or self.keys, identity),
            token_file=token_file,
            recorder=recorder,
        )
        return await self.stack.enter_async_context(channel)

    async def stub(self, identity: Identity = COORDINATOR, **options: Any) -> Any:
        return pb_grpc.PartyServiceStub(await self.channel(identity, **options))

    def token(self, role: Role, *, issuer: str = "federation") -> str:
        issued = TokenIssuer(issuing_secret(self.keys, issuer))
        return issued.issue(subject="someone", role=role, lifetime=timedelta(hours=1))


def code_of(error: grpc.aio.AioRpcError) -> str:
    """The stable code in a failed call's trailing metadata."""
    return str(dict(error.trailing_metadata() or ()).get("trefoil-code"))
