"""One encrypted prediction from the clinic's side: asks the coordinator, then the parties; keeps the time.

`libs/rpc/predict_client.py` has the exchange with the parties.
"""

from __future__ import annotations

import functools
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from libs.cli.client.session import CALL_TIMEOUT_S, plain_errors
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.secure_nn.plan import Plan

if TYPE_CHECKING:
    from libs.cli.client.session import Session
    from libs.rpc.predict_client import EvaluatorReport


@dataclass(frozen=True)
class EvaluatorCost:
    """What one evaluator reported about its part."""

    party: int
    rounds: int
    online_bytes: int
    online_s: float
    offline_bytes: int
    offline_s: float
    dealt_ahead: bool


@dataclass(frozen=True)
class Prediction:
    """Logits (batch, classes) and what they cost.

    `opened_s`, `prepared_s`, `masked_s`, `online_s`: wall-clock seconds on the client, one after the other;
    `libs/rpc/predict_client.py` says where each begins.
    """

    computation_id: str
    logits: npt.NDArray[np.float64]
    dealer: int
    evaluators: tuple[EvaluatorCost, EvaluatorCost]
    opened_s: float
    prepared_s: float
    masked_s: float
    online_s: float
    bytes_sent: int
    bytes_received: int

    @property
    def dealt_ahead(self) -> bool:
        """Whether the parties took the material from their pool."""
        return all(evaluator.dealt_ahead for evaluator in self.evaluators)

    @property
    def latency_s(self) -> float:
        """From asking the coordinator to holding the logits."""
        return self.opened_s + self.prepared_s + self.masked_s + self.online_s


@dataclass(frozen=True)
class OpenedPrediction:
    """A question that the servers are ready for. It expires, by the deadline that they set."""

    wire: coordinator_pb2.OpenPredictionResponse
    plan: Plan
    opened_s: float


@plain_errors
async def open_prediction(session: Session, *, model_id: str, batch: int) -> OpenedPrediction:
    """Announce a question about `batch` images; its plan says which shape they must have."""
    started = time.perf_counter()
    opened = await session.coordinator.OpenPrediction(
        coordinator_pb2.OpenPredictionRequest(model_id=model_id, batch=batch), timeout=CALL_TIMEOUT_S
    )
    return OpenedPrediction(opened, _parse_plan(opened.plan), time.perf_counter() - started)


@plain_errors
async def answer_prediction(
    session: Session, opened: OpenedPrediction, *, images: npt.NDArray[np.float32]
) -> Prediction:
    """Bring the images (B, C, H, W), scaled as in training, and reveal the answer. Works once per question.

    Raises what the servers raise: `Unavailable` when one of them is down (nothing was revealed, ask again),
    `PeerViolation`, `InvalidInput` for images that do not fit the model.
    """
    prediction = await session.predictions.predict(opened.wire, opened.plan, images)
    first, second = [_cost(report) for report in prediction.reports]
    return Prediction(
        computation_id=opened.wire.computation_id,
        logits=prediction.logits,
        dealer=opened.wire.dealer,
        evaluators=(first, second),
        opened_s=opened.opened_s,
        prepared_s=prediction.waited.prepared_s,
        masked_s=prediction.waited.masked_s,
        online_s=prediction.waited.online_s,
        bytes_sent=prediction.bytes_sent,
        bytes_received=prediction.bytes_received,
    )


async def predict(session: Session, *, model_id: str, images: npt.NDArray[np.float32]) -> Prediction:
    """Ask the model about `images`: both steps above, one after the other."""
    opened = await open_prediction(session, model_id=model_id, batch=len(images))
    return await answer_prediction(session, opened, images=images)


def _cost(report: EvaluatorReport) -> EvaluatorCost:
    return EvaluatorCost(
        party=int(report.party),
        rounds=report.rounds,
        online_bytes=report.bytes_sent_online,
        online_s=report.online_s,
        offline_bytes=report.bytes_received_offline,
        offline_s=report.offline_s,
        dealt_ahead=report.dealt_ahead,
    )


@functools.lru_cache(maxsize=8)
def _parse_plan(text: bytes) -> Plan:
    """Checking a plan takes longer than running a small one, and it is the same at every prediction."""
    return Plan.from_json(text)
