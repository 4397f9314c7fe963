"""What a hospital node sees of the federation: a coordinator that says what a test tells it, parties that
keep shares in memory. Real protos, real certificates, real interceptors; only the logic is missing.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from libs.core.errors import TrefoilError
from libs.core.ids import PARTIES
from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.additive.sharing import SeedShare, VectorShare, join, split_compressed
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2_grpc as pb_grpc
from libs.rpc._generated.trefoil.party.v1 import party_pb2, party_pb2_grpc
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.arrays import chunks_of, from_bytes, sha256_of
from libs.rpc.dev_ca import issuing_secret
from libs.rpc.identity import COORDINATOR, Identity, party_identity
from libs.rpc.server import RpcServer
from libs.rpc.tokens import Role, TokenIssuer, TokenVerifier
from libs.runtime.private_files import write_private
from tests.fakes.keys import tls_files

WAIT_S = 60.0


def write_token(keys: Path, path: Path, *, issuer: str, role: Role) -> Path:
    issued = TokenIssuer(issuing_secret(keys, issuer)).issue(
        subject="somebody", role=role, lifetime=timedelta(hours=1)
    )
    write_private(path, issued)
    return path


class FakeCoordinator(pb_grpc.CoordinatorServiceServicer):
    """Collects what the hospital says; `say` sends it an order."""

    def __init__(self) -> None:
        self.events: list[pb.HospitalEvent] = []
        self.attachments = 0
        self._orders: asyncio.Queue[pb.CoordinatorOrder | None] = asyncio.Queue()
        self._changed = asyncio.Event()
        self.welcome = pb.Welcome()
        self.refuses: TrefoilError | None = None

    def say(self, order: pb.CoordinatorOrder) -> None:
        self._orders.put_nowait(order)

    def hang_up(self) -> None:
        self._orders.put_nowait(None)

    async def Attach(
        self, requests: AsyncIterator[pb.HospitalEvent], context: Any
    ) -> AsyncIterator[pb.CoordinatorOrder]:
        self.attachments += 1
        if self.refuses is not None:
            raise self.refuses
        orders = self._orders = asyncio.Queue()
        reading = asyncio.create_task(self._read(requests, orders))
        try:
            yield pb.CoordinatorOrder(welcome=self.welcome)
            while (order := await orders.get()) is not None:
                yield order
        finally:
            reading.cancel()

    async def _read(
        self, requests: AsyncIterator[pb.HospitalEvent], orders: asyncio.Queue[pb.CoordinatorOrder | None]
    ) -> None:
        async for event in requests:
            self.events.append(event)
            self._changed.set()
            if event.HasField("leave"):
                orders.put_nowait(None)  # this stream's, whichever began last

    async def heard(
        self, kind: str, *, where: Callable[[Any], bool] = lambda _: True, count: int = 1
    ) -> list[Any]:
        """Wait until `count` events of a kind, for which `where` holds, have come."""

        async def enough() -> list[Any]:
            while True:
                self._changed.clear()
                found = [getattr(e, kind) for e in self.events if e.WhichOneof("event") == kind]
                chosen = [event for event in found if where(event)]
                if len(chosen) >= count:
                    return chosen
                await self._changed.wait()

        return await asyncio.wait_for(enough(), WAIT_S)


@dataclass
class FakeParty(party_pb2_grpc.PartyServiceServicer):
    """Keeps shares by name, expanded; remembers under which upload id they came."""

    shares: dict[bytes, RingArray] = field(default_factory=dict)
    upload_ids: list[str] = field(default_factory=list)
    terms: list[types_pb2.ContributionTerms] = field(default_factory=list)

    async def PutShares(
        self, requests: AsyncIterator[party_pb2.PutSharesRequest], context: Any
    ) -> party_pb2.PutSharesResponse:
        parts = [part async for part in requests]
        header, data = parts[0].header, b"".join(part.chunk for part in parts[1:])
        ring = {types_pb2.RING_32: Ring.RING_32, types_pb2.RING_64: Ring.RING_64}[header.ring]
        share = (
            SeedShare(header.seed)
            if header.WhichOneof("form") == "seed"
            else VectorShare(from_bytes(data, ring=ring, shape=(header.length,)))
        )
        self.shares[name_of(header.vector)] = share.expand(header.length, ring)
        self.upload_ids.append(header.upload_id)
        self.terms.append(header.terms)
        return party_pb2.PutSharesResponse()

    async def GetShares(
        self, request: party_pb2.GetSharesRequest, context: Any
    ) -> AsyncIterator[party_pb2.GetSharesResponse]:
        values = self.shares[name_of(request.vector)]
        description = party_pb2.ShareDescription(
            ring=types_pb2.RING_32, length=len(values), sha256=sha256_of(values, Ring.RING_32)
        )
        yield party_pb2.GetSharesResponse(description=description)
        for chunk in chunks_of(values, Ring.RING_32):
            yield party_pb2.GetSharesResponse(chunk=chunk)


def name_of(ref: types_pb2.VectorRef) -> bytes:
    return ref.SerializeToString(deterministic=True)


class FakeFederation:
    """A coordinator and three parties on real sockets. The coordinator can be stopped and started again."""

    def __init__(self, keys: Path) -> None:
        self.keys = keys
        self.coordinator = FakeCoordinator()
        self.parties = [FakeParty() for _ in PARTIES]
        self.address = "127.0.0.1:0"
        self._servers: list[RpcServer] = []
        self._coordinator_server: RpcServer | None = None

    async def start(self) -> None:
        for index, party in enumerate(self.parties):
            server = self._server(party_identity(index), "127.0.0.1:0")
            server.add(
                party_pb2_grpc.add_PartyServiceServicer_to_server, party, "trefoil.party.v1.PartyService"
            )
            port = await server.start()
            self._servers.append(server)
            self.coordinator.welcome.parties.add(
                index=index, endpoint=types_pb2.Endpoint(address=f"127.0.0.1:{port}")
            )
        await self.start_coordinator()

    async def start_coordinator(self) -> None:
        server = self._server(COORDINATOR, self.address)
        service = "trefoil.coordinator.v1.CoordinatorService"
        server.add(pb_grpc.add_CoordinatorServiceServicer_to_server, self.coordinator, service)
        self.address = f"127.0.0.1:{await server.start()}"
        self._coordinator_server = server

    async def stop_coordinator(self) -> None:
        assert self._coordinator_server is not None
        self.coordinator.hang_up()
        await self._coordinator_server.stop(grace_s=0.2)

    async def stop(self) -> None:
        await self.stop_coordinator()
        for server in self._servers:
            await server.stop(grace_s=0.2)

    def put(self, ref: types_pb2.VectorRef, vector: RingArray) -> None:
        """Deal a vector as its owner would have."""
        shares = split_compressed(vector, Ring.RING_32)
        for party, share in zip(self.parties, shares, strict=True):
            party.shares[name_of(ref)] = share.expand(len(vector), Ring.RING_32)

    def revealed(self, ref: types_pb2.VectorRef) -> RingArray:
        """What the three shares of a vector add up to."""
        return join([party.shares[name_of(ref)] for party in self.parties])

    def _server(self, identity: Identity, listen: str) -> RpcServer:
        tokens = TokenVerifier([issuing_secret(self.keys, "federation")])
        return RpcServer(name=identity.uri, listen=listen, tls=tls_files(self.keys, identity), tokens=tokens)


def in_minutes(minutes: float) -> datetime:
    return datetime.now(UTC) + timedelta(minutes=minutes)


async def eventually(condition: Callable[[], Awaitable[bool]]) -> None:
    """Return once the condition holds; TimeoutError if it does not within WAIT_S."""
    async with asyncio.timeout(WAIT_S):
        while not await condition():  # noqa: ASYNC110 - other processes set no events here
            await asyncio.sleep(0.02)
