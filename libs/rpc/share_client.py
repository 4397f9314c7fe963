"""Vectors between their owner and the three parties: nobody else is on the way.

An upload keeps its shares and its id through all retries. Shares of two splits must never meet at the
parties: they would add up to noise, and nobody could tell.
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
from libs.rpc.arrays import ChunkCollector, chunks_of, sha256_of
from libs.rpc.channel import translated
from libs.rpc.concurrently import together

MAX_VECTOR_BYTES = 1 << 33
SHORTEST_S = 60.0
SLOWEST_BYTES_PER_S = 1 << 16
"""As slow as parties take uploads in: a transfer may take `SHORTEST_S` and the time at this rate."""

_RING_CODES = {Ring.RING_32: types_pb2.RING_32, Ring.RING_64: types_pb2.RING_64}


@dataclass(frozen=True)
class Patience:
    """How often a call that found its party unavailable is tried, and how long to wait in between."""

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

    async def requests() -> AsyncIterator[party_pb2.PutSharesRequest]:
        yield party_pb2.PutSharesRequest(header=header)
        if not isinstance(share, SeedShare):
            for chunk in chunks_of(share.values, ring):
                yield party_pb2.PutSharesRequest(chunk=chunk)

    stub = party_pb2_grpc.PartyServiceStub(channel)
    async for _ in _attempts(patience):
        try:
            with translated():
                await stub.PutShares(requests(), timeout=_allowed_s(common.length, ring))
            return
        except Unavailable as error:
            last = error
    raise last


async def _get(
    channel: grpc.aio.Channel, ref: types_pb2.VectorRef, ring: Ring, patience: Patience
) -> RingArray:
    stub = party_pb2_grpc.PartyServiceStub(channel)
    async for _ in _attempts(patience):
        try:
            with translated():
                return await _download(stub, ref, ring)
        except Unavailable as error:
            last = error
    raise last


async def _download(stub: Any, ref: types_pb2.VectorRef, ring: Ring) -> RingArray:
    collector: ChunkCollector | None = None
    sha256 = b""
    call = stub.GetShares(party_pb2.GetSharesRequest(vector=ref))
    try:
        async with asyncio.timeout(SHORTEST_S) as deadline:
            async for response in call:
                if collector is None:
                    description = response.description
                    if response.WhichOneof("part") != "description" or description.ring != _RING_CODES[ring]:
                        raise InvalidInput(
                            f"The party does not hold this vector in the {ring.bits}-bit ring."
                        )
                    sha256, length = description.sha256, description.length
                    collector = ChunkCollector(ring=ring, length=length, max_bytes=MAX_VECTOR_BYTES)
                    deadline.reschedule(asyncio.get_running_loop().time() + _allowed_s(length, ring))
                else:
                    collector.add(response.chunk)
    except TimeoutError:
        raise DeadlineExceeded("A party did not send its share in time. Ask again.") from None
    finally:
        call.cancel()  # nothing happens to a call that has ended
    if collector is None:
        raise Unavailable("The party ended its answer before it began. Ask again.")
    return await asyncio.to_thread(collector.finish, sha256=sha256)


def _allowed_s(length: int, ring: Ring) -> float:
    """How long one transfer of a vector may take."""
    return SHORTEST_S + length * ring.element_bytes / SLOWEST_BYTES_PER_S


async def _attempts(patience: Patience) -> AsyncIterator[int]:
    """Counts attempts and waits between them, twice as long each time."""
    wait_s = patience.first_wait_s
    for attempt in range(patience.attempts):
        if attempt:
            await asyncio.sleep(wait_s)
            wait_s = min(2 * wait_s, patience.longest_wait_s)
        yield attempt


def _check_channels(channels: Mapping[PartyId, grpc.aio.Channel]) -> None:
    if set(channels) != set(PARTIES) or len({id(channel) for channel in channels.values()}) != len(PARTIES):
        raise InvalidInput("A vector is shared among the three parties; name a channel to each of them.")
