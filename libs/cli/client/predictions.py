"""One encrypted prediction, from the clinic's side.

The client gets one half of the input's mask from each evaluator, sends image + mask to both, and adds up the
two shares of the output. Neither evaluator sees image or output; the dealer sees nothing that depends on
them, and the coordinator only that somebody asked.
"""

from __future__ import annotations

import asyncio
import functools
import time
from collections.abc import AsyncIterator
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from libs.cli.client.session import CALL_TIMEOUT_S, plain_errors
from libs.core.errors import InvalidInput, PeerViolation
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc.arrays import chunks_of, from_bytes, sha256_of
from libs.secure_nn.client import mask_input, reveal_output
from libs.secure_nn.plan import Plan

if TYPE_CHECKING:
    from libs.cli.client.session import Session
    from libs.mpc.ring import RingArray

_MARGIN_S = 5.0
"""Our own deadline is this much later than the servers', so that their clearer error arrives first."""


@dataclass(frozen=True)
class EvaluatorCost:
    """What one evaluator reported about its part."""

    party: int
    rounds: int
    online_bytes: int
    online_s: float
    offline_bytes: int
    offline_s: float


@dataclass(frozen=True)
class Prediction:
    """Logits (batch, classes) and what they cost.

    `opened_s`, `answered_s`: wall-clock seconds on the client.
    """

    computation_id: str
    logits: npt.NDArray[np.float64]
    dealer: int
    evaluators: tuple[EvaluatorCost, EvaluatorCost]
    opened_s: float
    answered_s: float
    bytes_sent: int
    bytes_received: int

    @property
    def latency_s(self) -> float:
        """From asking the coordinator to holding the logits."""
        return self.opened_s + self.answered_s


@plain_errors
async def predict(session: Session, *, model_id: str, images: npt.NDArray[np.float32]) -> Prediction:
    """Ask the model about `images` (B, C, H, W), scaled as in training.

    Raises what the servers raise: `Unavailable` when one of them is down (nothing was revealed, ask again),
    `PeerViolation`, `NotFound`, `InvalidInput` for images of another shape.
    """
    started = time.perf_counter()
    opened = await session.coordinator.OpenPrediction(
        coordinator_pb2.OpenPredictionRequest(model_id=model_id, batch=len(images)), timeout=CALL_TIMEOUT_S
    )
    plan = _parse_plan(opened.plan)
    if tuple(images.shape[1:]) != tuple(plan.input_shape):
        raise InvalidInput(
            f"The model takes images of shape {tuple(plan.input_shape)}, not {tuple(images.shape[1:])}."
        )
    asked = time.perf_counter()
    exchange = _Exchange(session, opened, plan, images)
    logits = await exchange.run()
    answered = time.perf_counter()
    return Prediction(
        computation_id=opened.computation_id,
        logits=logits,
        dealer=opened.dealer,
        evaluators=exchange.costs(),
        opened_s=asked - started,
        answered_s=answered - asked,
        bytes_sent=exchange.bytes_sent,
        bytes_received=exchange.bytes_received,
    )


@functools.lru_cache(maxsize=8)
def _parse_plan(text: bytes) -> Plan:
    """Checking a plan takes longer than running a small one, and it is the same at every prediction."""
    return Plan.from_json(text)


class _Exchange:
    """The calls to both evaluators, run together: the masked input exists once each gave its seed."""

    def __init__(
        self,
        session: Session,
        opened: coordinator_pb2.OpenPredictionResponse,
        plan: Plan,
        images: npt.NDArray[np.float32],
    ) -> None:
        self._session, self._opened, self._plan, self._images = session, opened, plan, images
        self._evaluators = (opened.first_evaluator, opened.second_evaluator)
        loop = asyncio.get_running_loop()
        self._seeds: dict[int, asyncio.Future[bytes]] = {
            index: loop.create_future() for index in self._evaluators
        }
        self._masked: asyncio.Task[RingArray] | None = None
        self._ends: dict[int, party_pb2.PredictEnd] = {}
        self.bytes_sent = 0
        self.bytes_received = 0

    async def run(self) -> npt.NDArray[np.float64]:
        self._masked = asyncio.ensure_future(self._mask())
        calls = [asyncio.ensure_future(self._ask(index)) for index in self._evaluators]
        try:
            first, second = await asyncio.gather(*calls)
        except BaseException:
            # An image that cannot be masked cancels both calls; its own error says more than that they ended.
            if self._masked.done() and not self._masked.cancelled():
                self._masked.result()
            raise
        finally:
            for task in (self._masked, *calls):
                task.cancel()
            await asyncio.gather(self._masked, *calls, return_exceptions=True)
        return reveal_output(self._plan, first, second, batch=len(self._images))

    async def _mask(self) -> RingArray:
        first, second = [await self._seeds[index] for index in self._evaluators]
        return mask_input(self._plan, self._images, first, second)

    async def _ask(self, index: int) -> RingArray:
        party = next(party for party in self._opened.parties if party.index == index)
        call = self._session.party(party).Predict(
            self._requests(), timeout=self._opened.deadline_s + _MARGIN_S
        )
        share = bytearray()
        async for answer in call:
            part = answer.WhichOneof("part")
            if part == "mask" and not self._seeds[index].done():
                self._seeds[index].set_result(answer.mask.seed)
                self.bytes_received += len(answer.mask.seed)
            elif part == "output_share_chunk":
                share += answer.output_share_chunk
                self.bytes_received += len(answer.output_share_chunk)
            elif part == "end":
                self._ends[index] = answer.end
            else:
                raise self._violation(index, f"it sent an unexpected {part or 'empty message'}")
        shape = (len(self._images), *self._plan.output_shape)
        if index not in self._ends:
            raise self._violation(index, "it did not finish")
        return from_bytes(share, ring=self._plan.ring, shape=shape)

    async def _requests(self) -> AsyncIterator[party_pb2.PredictRequest]:
        computation_id = self._opened.computation_id
        yield party_pb2.PredictRequest(open=party_pb2.PredictOpen(computation_id=computation_id))
        assert self._masked is not None  # set by run() before any call starts
        masked = await asyncio.shield(self._masked)
        for chunk in chunks_of(masked, self._plan.ring):
            self.bytes_sent += len(chunk)
            yield party_pb2.PredictRequest(masked_input_chunk=chunk)
        digest = sha256_of(masked, self._plan.ring)
        yield party_pb2.PredictRequest(input_end=party_pb2.InputEnd(sha256=digest))

    def _violation(self, index: int, rule: str) -> PeerViolation:
        return PeerViolation(computation=self._opened.computation_id, sender=index, rule=rule)

    def costs(self) -> tuple[EvaluatorCost, EvaluatorCost]:
        """What both evaluators reported, first evaluator first."""
        first, second = [self._cost(index) for index in self._evaluators]
        return first, second

    def _cost(self, index: int) -> EvaluatorCost:
        end = self._ends[index]
        return EvaluatorCost(
            party=index,
            rounds=end.rounds,
            online_bytes=end.bytes_sent_online,
            online_s=end.online_s,
            offline_bytes=end.bytes_received_offline,
            offline_s=end.offline_s,
        )
