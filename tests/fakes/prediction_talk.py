"""Predictions asked of three parties, rightly and message by message."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator
from typing import Any

import numpy as np

from libs.core.ids import PARTIES, PartyId
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc.channel import translated
from tests.fakes.party_rig import CLINIC, PartyRig, SmallModel

MODEL = "study-1/released"
P0, P1, P2 = PARTIES


async def check(rig: PartyRig, model: SmallModel, *, batch: int = 1, turn: int = 0) -> None:
    """One more prediction, which must be right."""
    assignment = await rig.open_prediction(MODEL, batch=batch, turn=turn)
    client = await rig.client()
    result = await client.predict(assignment, model.plan, model.pixels(batch))
    np.testing.assert_allclose(result.logits, model.logits(batch), atol=0.02)


class Talk:
    """A client that says exactly what a test tells it to, to one evaluator."""

    def __init__(
        self, rig: PartyRig, assignment: coordinator_pb2.OpenPredictionResponse, party: PartyId
    ) -> None:
        self._rig, self._assignment, self._party = rig, assignment, party
        self._said: asyncio.Queue[party_pb2.PredictRequest | None] = asyncio.Queue()
        self._call: Any = None

    async def __aenter__(self) -> tuple[asyncio.Queue[Any], AsyncIterator[party_pb2.PredictResponse]]:
        stub = await self._rig.stub(self._party, CLINIC)
        self._call = stub.Predict(self._requests())
        return self._said, aiter(self._call)

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()

    async def _requests(self) -> AsyncIterator[party_pb2.PredictRequest]:
        yield party_pb2.PredictRequest(
            open=party_pb2.PredictOpen(computation_id=self._assignment.computation_id)
        )
        while (request := await self._said.get()) is not None:
            yield request


def talking(rig: PartyRig, assignment: coordinator_pb2.OpenPredictionResponse, party: PartyId) -> Talk:
    return Talk(rig, assignment, party)


async def first_answer(
    rig: PartyRig, assignment: coordinator_pb2.OpenPredictionResponse, party: PartyId
) -> party_pb2.PredictResponse:
    async with talking(rig, assignment, party) as (_, answers):
        with translated():
            return await anext(answers)


def chunk(data: bytes) -> party_pb2.PredictRequest:
    return party_pb2.PredictRequest(masked_input_chunk=data)


def end(data: bytes) -> party_pb2.PredictRequest:
    return party_pb2.PredictRequest(input_end=party_pb2.InputEnd(sha256=hashlib.sha256(data).digest()))
