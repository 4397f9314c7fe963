"""The clinic's part: every held-out image in batches, and single images to see how long one takes."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from libs.cli.client.predictions import Prediction, predict
from libs.cli.client.session import Session
from libs.data.imageset import ImageSet
from libs.data.transforms import to_model_input

BATCH = 32
SINGLES = 15
WARM_UP = 6  # the first of a kind load kernels and open connections; they are answered, not timed


@dataclass(frozen=True)
class Asked:
    """Logits (N, classes) of all test images, and the predictions they came from."""

    logits: npt.NDArray[np.float64]
    batches: list[Prediction]
    singles: list[Prediction]

    @property
    def latency_s(self) -> float:
        """Median seconds for one image: from asking the coordinator until the clinic holds the logits."""
        return statistics.median(prediction.latency_s for prediction in self.singles)

    @property
    def online_s(self) -> float:
        """Median seconds of that online: from sending the masked image to the logits."""
        return statistics.median(prediction.online_s for prediction in self.singles)

    @property
    def batch_s(self) -> float:
        """Median seconds for a full batch of 32."""
        full = [prediction.latency_s for prediction in self.batches if len(prediction.logits) == BATCH]
        return statistics.median(full[1:] or full or [prediction.latency_s for prediction in self.batches])

    @property
    def rounds(self) -> int:
        """Rounds between the evaluators for one question."""
        return max(evaluator.rounds for evaluator in self.singles[0].evaluators)


async def ask_about_all(clinic: Session, *, model_id: str, test: ImageSet, console: Console) -> Asked:
    """Ask about every test image under encryption."""
    pixels = to_model_input(test.images).numpy()
    for _ in range(WARM_UP):
        await predict(clinic, model_id=model_id, images=pixels[:1])
    singles = [
        await predict(clinic, model_id=model_id, images=pixels[i : i + 1])
        for i in range(min(SINGLES, len(test)))
    ]
    batches = []
    starts = range(0, len(test), BATCH)
    for start in track(
        starts, description="  questions", console=console, disable=not console.is_terminal, transient=True
    ):
        batches.append(await predict(clinic, model_id=model_id, images=pixels[start : start + BATCH]))
    return Asked(logits=np.concatenate([b.logits for b in batches]), batches=batches, singles=singles)


def bytes_of_one_image(asked: Asked) -> dict[str, int]:
    """Payload bytes that each role sends for one question about one image."""
    one = asked.singles[0]
    first, second = one.evaluators
    return {
        "client": one.bytes_sent,
        "dealer": max(first.offline_bytes, second.offline_bytes),
        "first_evaluator": first.online_bytes,
        "second_evaluator": second.online_bytes,
    }


def bytes_sent_by_party(asked: Asked) -> list[int]:
    """Payload bytes that party 0, 1 and 2 sent to each other for all test images; roles rotate."""
    totals = [0, 0, 0]
    for prediction in asked.batches:
        for evaluator in prediction.evaluators:
            totals[evaluator.party] += evaluator.online_bytes
        totals[prediction.dealer] += max(evaluator.offline_bytes for evaluator in prediction.evaluators)
    return totals
