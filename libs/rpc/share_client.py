"""Vectors between their owner and the three parties: nobody else is on the way.

An upload keeps its shares and its id through all retries. Shares of two splits must never meet at the
parties: they would add up to noise, and nobody could tell. After a line broke, both directions go on from
what the other side has.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from dataclasses import dataclass
from typing import Any

import grpc

from libs.core.errors import DeadlineExceeded, InvalidInput, Unavailable
from libs.core.ids import PARTIES, PartyId, new_id
from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.additive.sharing import CompressedShare, SeedShare, join, split_compressed
from libs.rpc._generated.trefoil.party.v1 import party_pb2, party_pb2_grpc
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.arrays import ChunkCollector, growing_chunks_of, sha256_of
from libs.rpc.channel import translated
from libs.rpc.concurrently import together

MAX_VECTOR_BYTES = 1 << 33
SHORTEST_S = 60.0
DESCRIBE_S = 30.0
SLOWEST_BYTES_PER_S = 1 << 16
"""As slow as parties take uploads in: a transfer may take `SHORTEST_S` and the time at this rate."""

_RING_CODES = {Ring.RING_32: types_pb2.RING_32, Ring.RING_64: types_pb2.RING_64}


@dataclass(frozen=True)
class Patience:
    """How often in a row a transfer may break off without getting any further, and the waits in between."""

    attempts: int = 5
    first_wait_s: float = 0.2
    longest_wait_s: float = 5.0


async def deal_vector(
    vector: RingArray,
    *,
    ring: Ring,
    ref: types_pb2.VectorRef,
    channels: Mapping[PartyId, grpc.aio.Channel],
    upload_id: str | None = None,
    terms: types_pb2.ContributionTerms | None = None,
    patience: Patience = Patience(),
) -> str:
    """Split `vector` (n,) and give each party its share; the upload's id. A contribution needs `terms`.

    Returns when all three have it on disk. Raises what a party answered; `Unavailable` after the last
    attempt. What was stored by then stays: deal again under another name.
    """
    _check_channels(channels)
    upload = upload_id or new_id("upload")
    shares = dict(zip(PARTIES, await asyncio.to_thread(split_compressed, vector, ring), strict=True))
    header = types_pb2.ShareHeader(
        upload_id=upload, vector=ref, ring=_RING_CODES[ring], length=len(vector), terms=terms
    )
    await together(*(_put(channels[party], header, shares[party], ring, patience) for party in PARTIES))
    return upload


async def fetch_vector(
    ref: types_pb2.VectorRef,
    *,
    ring: Ring,
    channels: Mapping[PartyId, grpc.aio.Channel],
    patience: Patience = Patience(),
) -> RingArray:
    """The vector behind the three parties' shares. Shape (n,). Raises what a party answered."""
    _check_channels(channels)
    return join(await together(*(_get(channels[party], ref, ring, patience) for party in PARTIES)))


async def _put(
    channel: grpc.aio.Channel,
    common: types_pb2.ShareHeader,
    share: CompressedShare,
    ring: Ring,
    patience: Patience,
) -> None:
    header = types_pb2.ShareHeader()
    header.CopyFrom(common)
    if isinstance(share, SeedShare):
        header.seed = share.seed
    else:
        header.vector_sha256 = await asyncio.to_thread(sha256_of, share.values, ring)

    stub = party_pb2_grpc.PartyServiceStub(channel)
    endurance = _Endurance(patience)
    while True:
        try:
            with translated():
                if endurance.tried and await _stored_already(stub, header):
                    return
                await stub.PutShares(_requests(header, share, ring), timeout=_allowed_s(common.length, ring))
            return
        except Unavailable as error:
            await endurance.broke_off(error, reached_bytes=header.offset)


async def _stored_already(stub: Any, header: types_pb2.ShareHeader) -> bool:
    """Whether the party has all of the upload; else its header now says where to go on."""
    request = party_pb2.DescribeUploadRequest(header=header)
    described = await stub.DescribeUpload(request, timeout=DESCRIBE_S)
    header.offset = described.received_bytes
    return bool(described.stored)


async def _requests(
    header: types_pb2.ShareHeader, share: CompressedShare, ring: Ring
) -> AsyncIterator[party_pb2.PutSharesRequest]:
    yield party_pb2.PutSharesRequest(header=header)
    if not isinstance(share, SeedShare):
        for chunk in growing_chunks_of(share.values, ring, offset=header.offset):
            yield party_pb2.PutSharesRequest(chunk=chunk)


async def _get(
    channel: grpc.aio.Channel, ref: types_pb2.VectorRef, ring: Ring, patience: Patience
) -> RingArray:
    download = _Download(party_pb2_grpc.PartyServiceStub(channel), ref, ring)
    endurance = _Endurance(patience)
    while True:
        try:
            with translated():
                return await download.go_on()
        except Unavailable as error:
            await endurance.broke_off(error, reached_bytes=download.received_bytes)


class _Download:
    """One share on its way here; what has come stays through a broken line."""

    def __init__(self, stub: Any, ref: types_pb2.VectorRef, ring: Ring) -> None:
        self._stub, self._ref, self._ring = stub, ref, ring
        self._collector: ChunkCollector | None = None
        self._described = party_pb2.ShareDescription()

    @property
    def received_bytes(self) -> int:
        """How far it came."""
        return 0 if self._collector is None else self._collector.received_bytes

    async def go_on(self) -> RingArray:
        """The share, once its rest has come. Raises what the party answers, `Unavailable` to go on later."""
        request = party_pb2.GetSharesRequest(vector=self._ref, offset=self.received_bytes)
        call = self._stub.GetShares(request)
        begun = False
        try:
            async with asyncio.timeout(SHORTEST_S) as deadline:
                async for response in call:
                    if begun and self._collector is not None:
                        self._collector.add(response.chunk)
                        continue
                    begun = True
                    self._begin(response)
                    allowed_s = _allowed_s(self._described.length, self._ring)
                    deadline.reschedule(asyncio.get_running_loop().time() + allowed_s)
        except TimeoutError:
            raise DeadlineExceeded("A party did not send its share in time. Ask again.") from None
        finally:
            call.cancel()  # nothing happens to a call that has ended
        if not begun or self._collector is None:
            raise Unavailable("The party ended its answer before it began. Ask again.")
        return await asyncio.to_thread(self._collector.finish, sha256=self._described.sha256)

    def _begin(self, response: party_pb2.GetSharesResponse) -> None:
        """Check that what follows is the share, and the one that part of has come."""
        described = response.description
        if response.WhichOneof("part") != "description" or described.ring != _RING_CODES[self._ring]:
            raise InvalidInput(f"The party does not hold this vector in the {self._ring.bits}-bit ring.")
        if self._collector is not None and described != self._described:
            self._collector = None
            raise Unavailable(
                "The party's share is not the one that part of was sent. Ask again for all of it."
            )
        if self._collector is None:
            self._described = described
            self._collector = ChunkCollector(
                ring=self._ring, length=described.length, max_bytes=MAX_VECTOR_BYTES
            )


def _allowed_s(length: int, ring: Ring) -> float:
    """How long one transfer of a vector may take."""
    return SHORTEST_S + length * ring.element_bytes / SLOWEST_BYTES_PER_S


class _Endurance:
    """Counts how often a transfer broke off without getting further, and waits, twice as long each time."""

    def __init__(self, patience: Patience) -> None:
        self._patience, self._reached_bytes = patience, 0
        self._in_vain, self._wait_s = 0, patience.first_wait_s
        self.tried = False

    async def broke_off(self, error: Unavailable, *, reached_bytes: int) -> None:
        """Returns when it is time for the next attempt. Raises `error` after the last one."""
        self.tried = True
        if reached_bytes > self._reached_bytes:
            self._reached_bytes = reached_bytes
            self._in_vain, self._wait_s = 0, self._patience.first_wait_s
        self._in_vain += 1
        if self._in_vain >= self._patience.attempts:
            raise error
        await asyncio.sleep(self._wait_s)
        self._wait_s = min(2 * self._wait_s, self._patience.longest_wait_s)


def _check_channels(channels: Mapping[PartyId, grpc.aio.Channel]) -> None:
    if set(channels) != set(PARTIES) or len({id(channel) for channel in channels.values()}) != len(PARTIES):
        raise InvalidInput("A vector is shared among the three parties; name a channel to each of them.")
