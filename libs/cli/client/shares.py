"""A vector goes to the three parties as shares, or comes back from them. No other service is on the way."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TYPE_CHECKING

from libs.cli.client.session import CALL_TIMEOUT_S, plain_errors
from libs.core.errors import InvalidInput, PeerViolation
from libs.core.ids import new_id
from libs.mpc.ring import Ring, RingArray
from libs.mpc.schemes.additive.sharing import CompressedShare, SeedShare, join, split_compressed
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.arrays import ChunkCollector, chunks_of, sha256_of

if TYPE_CHECKING:
    from libs.cli.client.session import Session

MAX_VECTOR_BYTES = 1 << 30
"""Larger models than a client should hold in memory; a server that announces more is not believed."""

_WIRE_RING = {Ring.RING_32: types_pb2.RING_32, Ring.RING_64: types_pb2.RING_64}
_RING = {wire: ring for ring, wire in _WIRE_RING.items()}


@plain_errors
async def deal_model(
    session: Session, *, parties: Sequence[types_pb2.Party], model_id: str, vector: RingArray, ring: Ring
) -> None:
    """Split `vector` (length,) and send one share to each party.

    Each alone, and any two, learn nothing of it.
    """
    upload_id = new_id("upload")
    reference = types_pb2.VectorRef(model_id=model_id)
    shares = split_compressed(vector, ring)
    await asyncio.gather(
        *[
            session.party(party).PutShares(
                _upload(upload_id, reference, share, len(vector), ring), timeout=CALL_TIMEOUT_S
            )
            for party, share in zip(_by_index(parties), shares, strict=True)
        ]
    )


async def _upload(
    upload_id: str, vector: types_pb2.VectorRef, share: CompressedShare, length: int, ring: Ring
) -> AsyncIterator[party_pb2.PutSharesRequest]:
    header = types_pb2.ShareHeader(upload_id=upload_id, vector=vector, ring=_WIRE_RING[ring], length=length)
    if isinstance(share, SeedShare):
        header.seed = share.seed
        yield party_pb2.PutSharesRequest(header=header)
        return
    header.vector_sha256 = sha256_of(share.values, ring)
    yield party_pb2.PutSharesRequest(header=header)
    for chunk in chunks_of(share.values, ring):
        yield party_pb2.PutSharesRequest(chunk=chunk)


@plain_errors
async def fetch_vector(
    session: Session, *, parties: Sequence[types_pb2.Party], reference: types_pb2.VectorRef
) -> RingArray:
    """The vector behind the three parties' shares; they give them to its readers only. Shape (length,)."""
    request = party_pb2.GetSharesRequest(vector=reference)
    return join(
        await asyncio.gather(*[_fetch_share(session, party, request) for party in _by_index(parties)])
    )


async def _fetch_share(
    session: Session, party: types_pb2.Party, request: party_pb2.GetSharesRequest
) -> RingArray:
    collector: ChunkCollector | None = None
    sha256 = b""
    async for message in session.party(party).GetShares(request, timeout=CALL_TIMEOUT_S):
        if message.WhichOneof("part") == "description" and collector is None:
            ring = _RING.get(message.description.ring)
            if ring is None:
                raise _violation(party, "it described a share of no known ring")
            collector = ChunkCollector(
                ring=ring, length=message.description.length, max_bytes=MAX_VECTOR_BYTES
            )
            sha256 = message.description.sha256
        elif collector is None:
            raise _violation(party, "it sent a share without describing it")
        else:
            collector.add(message.chunk)
    if collector is None:
        raise _violation(party, "it sent no share")
    return collector.finish(sha256=sha256)


def _violation(party: types_pb2.Party, rule: str) -> PeerViolation:
    return PeerViolation(computation="GetShares", sender=party.index, rule=rule)


def _by_index(parties: Sequence[types_pb2.Party]) -> list[types_pb2.Party]:
    ordered = sorted(parties, key=lambda party: party.index)
    if [party.index for party in ordered] != [0, 1, 2]:
        raise InvalidInput(
            "The coordinator did not name parties 0, 1 and 2. Ask its operator to check its settings."
        )
    return ordered
