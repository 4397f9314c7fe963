"""This party's replica in cell 0, over gRPC: where the other cells' replicas get their model
shares, and whether somebody may ask them."""

from __future__ import annotations

import grpc

from libs.core.errors import InvalidInput
from libs.core.ids import PartyId
from libs.rpc._generated.trefoil.party.v1 import party_pb2, party_pb2_grpc
from libs.rpc.arrays import ChunkCollector
from libs.rpc.channel import open_channel, translated
from libs.rpc.identity import Identity, TlsFiles, party_identity
from libs.rpc.recorder import Recorder
from services.smpc_party.domain import ModelSpec
from services.smpc_party.ports import FetchedModel

TIMEOUT_S = 300.0
USE_TIMEOUT_S = 5.0


class GrpcHome:
    """Dials with the party's own certificate, which is also the one that must answer."""

    def __init__(self, address: str, *, me: PartyId, tls: TlsFiles, recorder: Recorder | None) -> None:
        self._channel: grpc.aio.Channel = open_channel(
            address=address, server=party_identity(me), tls=tls, recorder=recorder
        )

    async def fetch(self, model_id: str) -> FetchedModel:
        """The model and its share, which is checked against its hash."""
        stub = party_pb2_grpc.PeerServiceStub(self._channel)
        request = party_pb2.FetchModelRequest(model_id=model_id)
        with translated():
            stream = aiter(stub.FetchModel(request, timeout=TIMEOUT_S))
            first = await anext(stream, None)
            if first is None or first.WhichOneof("part") != "header":
                raise InvalidInput("The home replica did not begin with the model's header.")
            spec = ModelSpec.from_json(first.header.spec.decode())
            size_bytes = spec.length * spec.ring.element_bytes
            collector = ChunkCollector(ring=spec.ring, length=spec.length, max_bytes=size_bytes)
            async for part in stream:
                collector.add(part.chunk)
        return FetchedModel(spec, first.header.upload_id, collector.finish(sha256=first.header.sha256))

    async def use_model(self, model_id: str, asker: Identity, *, images: int) -> bool:
        """Have images counted, and whether that is under a limit; 0 asks only whether it is allowed."""
        request = party_pb2.UseModelRequest(model_id=model_id, asker_identity=asker.uri, images=images)
        with translated():
            stub = party_pb2_grpc.PeerServiceStub(self._channel)
            answer: party_pb2.UseModelResponse = await stub.UseModel(request, timeout=USE_TIMEOUT_S)
        return answer.limited

    async def close(self) -> None:
        """Hang up."""
        await self._channel.close()
