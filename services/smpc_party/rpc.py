"""PartyService: messages in, domain calls, messages out. What is decided is decided elsewhere."""

from __future__ import annotations

import asyncio
import math
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

from libs.core.errors import DeadlineExceeded, InvalidInput, TrefoilError
from libs.mpc.ring import Ring
from libs.rpc._generated.trefoil.party.v1 import party_pb2, party_pb2_grpc
from libs.rpc.arrays import ChunkCollector, chunks_of, growing_chunks_of, sha256_of
from libs.rpc.caller import current_caller
from services.smpc_party import wire
from services.smpc_party.aggregation import Aggregator
from services.smpc_party.limits import PredictionLimits
from services.smpc_party.pool import Pool
from services.smpc_party.ports import Rounds
from services.smpc_party.predictions import Answer, MaskedInput, Prediction, Predictions
from services.smpc_party.uploads import IDLE_S, ShareDesk
from services.smpc_party.uses import Uses

DRAIN_S = 60.0

_Outcome = party_pb2.CloseRoundResponse.Outcome


class PartyService(party_pb2_grpc.PartyServiceServicer):
    """What a party offers to the coordinator, to data owners and to clients."""

    def __init__(
        self,
        *,
        rounds: Rounds,
        desk: ShareDesk,
        aggregator: Aggregator,
        predictions: Predictions,
        uses: Uses,
        pool: Pool,
        limits: PredictionLimits,
    ) -> None:
        self._rounds, self._desk, self._pool, self._limits = rounds, desk, pool, limits
        self._aggregator, self._predictions, self._uses = aggregator, predictions, uses

    # ---------------------------------------------------------------- from the coordinator

    async def RegisterModel(
        self, request: party_pb2.RegisterModelRequest, context: Any
    ) -> party_pb2.RegisterModelResponse:
        """Announce a model vector."""
        await asyncio.to_thread(self._rounds.add_model, wire.model_spec(request, limits=self._limits))
        return party_pb2.RegisterModelResponse()

    async def OpenRound(
        self, request: party_pb2.OpenRoundRequest, context: Any
    ) -> party_pb2.OpenRoundResponse:
        """Open a round for contributions."""
        await self._aggregator.open(wire.round_spec(request, limits=self._limits))
        return party_pb2.OpenRoundResponse()

    async def CloseRound(
        self, request: party_pb2.CloseRoundRequest, context: Any
    ) -> party_pb2.CloseRoundResponse:
        """Add the complete contributions, together with the peers."""
        computation_id = wire.computation_id(request.computation_id)
        closed = await self._aggregator.close(
            wire.round_key(request.round), computation_id, attempt=request.round.attempt
        )
        aggregated = closed.result_model_id is not None
        if aggregated:
            await self._desk.round_over(wire.round_key(request.round))
        return party_pb2.CloseRoundResponse(
            outcome=_Outcome.OUTCOME_AGGREGATED if aggregated else _Outcome.OUTCOME_BELOW_QUORUM,
            result_model_id=closed.result_model_id or "",
            survivor_identities=[hospital.uri for hospital in closed.survivors],
            bytes_sent_to_peers=closed.sent_bytes,
            refused_identities=[hospital.uri for hospital in closed.refused],
        )

    async def AbandonRound(
        self, request: party_pb2.AbandonRoundRequest, context: Any
    ) -> party_pb2.AbandonRoundResponse:
        """Forget a round that is not closed."""
        await self._aggregator.abandon(wire.round_key(request.round), attempt=request.round.attempt)
        await self._desk.round_over(wire.round_key(request.round))
        return party_pb2.AbandonRoundResponse()

    async def OpenPrediction(
        self, request: party_pb2.OpenPredictionRequest, context: Any
    ) -> party_pb2.OpenPredictionResponse:
        """Take a role in one prediction; the work begins in the background."""
        limited = await self._predictions.open(wire.prediction_spec(request))
        return party_pb2.OpenPredictionResponse(limited=limited)

    async def DescribePool(
        self, request: party_pb2.DescribePoolRequest, context: Any
    ) -> party_pb2.DescribePoolResponse:
        """Levels and counts."""
        levels = (level for level in self._pool.levels() if request.model_id in {"", level.shelf.model_id})
        return party_pb2.DescribePoolResponse(shelves=[wire.shelf_message(level) for level in levels])

    # ---------------------------------------------------------------- from data owners and clients

    async def PutShares(
        self, request_iterator: AsyncIterator[party_pb2.PutSharesRequest], context: Any
    ) -> party_pb2.PutSharesResponse:
        """Store one share: a header, then its chunks."""
        requests = aiter(request_iterator)
        try:
            already_stored = await self._put(requests)
        except DeadlineExceeded:
            raise  # the caller asks how far it came, and is told in words what there is to be told
        except TrefoilError:
            await _drain(requests)
            raise
        await _drain(requests)
        return party_pb2.PutSharesResponse(already_stored=already_stored)

    async def _put(self, requests: AsyncIterator[party_pb2.PutSharesRequest]) -> bool:
        first = None
        with suppress(TimeoutError):
            async with asyncio.timeout(IDLE_S):
                first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidInput("An upload begins with its header.")
        return await self._desk.put(wire.upload(first.header), current_caller().identity, _chunks(requests))

    async def DescribeUpload(
        self, request: party_pb2.DescribeUploadRequest, context: Any
    ) -> party_pb2.DescribeUploadResponse:
        """How far an upload of the caller came."""
        found = await self._desk.describe(wire.upload(request.header), current_caller().identity)
        return party_pb2.DescribeUploadResponse(stored=found.stored, received_bytes=found.received_bytes)

    async def GetShares(
        self, request: party_pb2.GetSharesRequest, context: Any
    ) -> AsyncIterator[party_pb2.GetSharesResponse]:
        """Hand out this party's share of one vector, in full or from where an earlier call broke off."""
        ring, share = await self._desk.get(wire.vector(request.vector), current_caller().identity)
        digest = await asyncio.to_thread(sha256_of, share, ring)
        description = party_pb2.ShareDescription(ring=wire.RING_CODES[ring], length=len(share), sha256=digest)
        if request.offset > share.nbytes:
            raise InvalidInput(f"The share has {share.nbytes} bytes; there is nothing from {request.offset}.")
        yield party_pb2.GetSharesResponse(description=description)
        for chunk in growing_chunks_of(share, ring, offset=request.offset):
            yield party_pb2.GetSharesResponse(chunk=chunk)

    async def Predict(
        self, request_iterator: AsyncIterator[party_pb2.PredictRequest], context: Any
    ) -> AsyncIterator[party_pb2.PredictResponse]:
        """One evaluator's side of a prediction: mask out, masked input in, output share out."""
        requests = aiter(request_iterator)
        first = await anext(requests, None)
        if first is None or first.WhichOneof("part") != "open":
            raise InvalidInput("A prediction begins by naming its computation.")
        prediction = self._predictions.claim(first.open.computation_id, current_caller().identity)
        try:
            seed = await asyncio.shield(prediction.input_seed)
            yield party_pb2.PredictResponse(mask=party_pb2.InputMask(seed=seed))
            masked_input = await prediction.unless_burned(_masked_input(requests, prediction))
            if not prediction.masked_input.done():
                prediction.masked_input.set_result(masked_input)
            answer = await asyncio.shield(prediction.answer)
            for response in _responses(answer, prediction.plan.ring):
                yield response
        finally:
            # A client that hangs up or sends nonsense burns the prediction, at the peers too.
            if prediction.task is not None:
                prediction.task.cancel()
                await asyncio.gather(prediction.task, return_exceptions=True)

    # ---------------------------------------------------------------- from the hospitals in a model

    async def SetModelUse(
        self, request: party_pb2.SetModelUseRequest, context: Any
    ) -> party_pb2.SetModelUseResponse:
        """Replace the calling hospital's rules. Once this returns they hold, also for what waits here."""
        rules = wire.hospital_rules(request)
        record = await asyncio.to_thread(self._rounds.model, request.model_id)
        revision = await self._uses.set_rules(record.spec, current_caller().identity, rules)
        await self._predictions.burn_refused(request.model_id)
        return party_pb2.SetModelUseResponse(revision=revision)

    async def DescribeModelUse(
        self, request: party_pb2.DescribeModelUseRequest, context: Any
    ) -> party_pb2.DescribeModelUseResponse:
        """Who asked how often."""
        record = await asyncio.to_thread(self._rounds.model, request.model_id)
        asked = await self._uses.asked(record.spec, current_caller().identity)
        counts = [
            party_pb2.ModelUseCount(asker_identity=asker, predictions=images)
            for asker, images in sorted(asked.items())
        ]
        return party_pb2.DescribeModelUseResponse(counts=counts)


async def _chunks(requests: AsyncIterator[party_pb2.PutSharesRequest]) -> AsyncIterator[bytes]:
    async for request in requests:
        if request.WhichOneof("part") != "chunk":
            raise InvalidInput("After the header, an upload has only chunks.")
        yield request.chunk


async def _drain(requests: AsyncIterator[party_pb2.PutSharesRequest]) -> None:
    """Read what is left of an upload before it is answered early.

    gRPC's client takes an answer that overtakes its own sending for an internal error, and loses the text.
    """
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_S):
            async for _ in requests:
                pass


async def _masked_input(
    requests: AsyncIterator[party_pb2.PredictRequest], prediction: Prediction
) -> MaskedInput:
    """The input as it arrives, no longer than the plan says, and whole."""
    ring, shape = prediction.plan.ring, (prediction.spec.batch, *prediction.plan.input_shape)
    length = math.prod(shape)
    collector = ChunkCollector(ring=ring, length=length, max_bytes=length * ring.element_bytes)
    async for request in requests:
        match request.WhichOneof("part"):
            case "masked_input_chunk":
                collector.add(request.masked_input_chunk)
            case "input_end":
                digest = request.input_end.sha256
                return MaskedInput(collector.finish(sha256=digest).reshape(shape), digest)
            case _:
                raise InvalidInput("After naming its computation, a client sends chunks and then their end.")
    raise InvalidInput("The input ended without its hash, so it may be incomplete. Ask again.")


def _responses(answer: Answer, ring: Ring) -> list[party_pb2.PredictResponse]:
    end = party_pb2.PredictEnd(
        rounds=answer.rounds,
        bytes_sent_online=answer.sent_bytes_online,
        online_s=answer.online_s,
        bytes_received_offline=answer.received_bytes_offline,
        offline_s=answer.offline_s,
        dealt_ahead=answer.dealt_ahead,
        comparison=answer.comparison.value,
    )
    return [
        *(party_pb2.PredictResponse(output_share_chunk=chunk) for chunk in chunks_of(answer.share, ring)),
        party_pb2.PredictResponse(end=end),
    ]
