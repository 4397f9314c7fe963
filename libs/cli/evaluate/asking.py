"""The last row: every test image asked under encryption, and what that changed."""

from __future__ import annotations

import statistics
import time
from typing import Any

import numpy as np
import numpy.typing as npt
from rich.console import Console
from rich.progress import track

from libs.cli.client.models import import_plan
from libs.cli.client.predictions import open_prediction, predict
from libs.cli.client.session import Session
from libs.cli.demo.asking import Asked, bytes_sent_by_party
from libs.cli.evaluate.federated import model_with
from libs.cli.evaluate.store import Outcome
from libs.data.imageset import ImageSet
from libs.data.transforms import to_model_input
from libs.fl.calibration import calibration_images
from libs.fl.evaluation import predict_logits, probabilities_of
from libs.fl.training_plan import TrainingPlan
from libs.secure_nn.calibrate import calibrate, merge_bounds
from libs.secure_nn.compile import compile_module
from libs.secure_nn.encode import encode_parameters

_LARGEST_BATCH = 32
_PIXELS_AT_ONCE = _LARGEST_BATCH * 64 * 64
_SINGLES = 5


async def deal_model(
    session: Session,
    *,
    name: str,
    plan: TrainingPlan,
    weights: npt.NDArray[np.float32],
    parts: dict[str, ImageSet],
) -> str:
    """The id of a model with these weights at the parties, compiled as a study's release compiles it.

    Every hospital's bounds are taken on the images that its node would take.
    """
    module = model_with(plan, weights)
    bounds = merge_bounds(
        calibrate(module, to_model_input(calibration_images(part, plan).images)) for part in parts.values()
    )
    shape = (plan.channels, plan.image_size, plan.image_size)
    compiled = compile_module(module, input_shape=shape, bounds=bounds)
    model = await import_plan(
        session, name=name, plan=compiled, parameters=encode_parameters(module, compiled)
    )
    return model.model_id


async def ask_all(
    session: Session,
    *,
    model_id: str,
    plan: TrainingPlan,
    source: Outcome,
    test: ImageSet,
    console: Console,
) -> Outcome:
    """Ask about all test images; `source` is the step that trained the model, with its clear weights."""
    pixels = to_model_input(test.images).numpy()
    opened = await open_prediction(session, model_id=model_id, batch=1)
    singles = [await predict(session, model_id=model_id, images=pixels[i : i + 1]) for i in range(_SINGLES)]
    batch = max(1, min(_LARGEST_BATCH, _PIXELS_AT_ONCE // plan.image_size**2))
    starts, batches = range(0, len(test), batch), []
    started = time.perf_counter()
    for start in track(
        starts, description="  questions", console=console, disable=not console.is_terminal, transient=True
    ):
        batches.append(await predict(session, model_id=model_id, images=pixels[start : start + batch]))
    seconds = time.perf_counter() - started
    logits = np.concatenate([answer.logits for answer in batches])
    asked = Asked(plan=opened.plan, logits=logits, batches=batches, singles=singles)
    by_party = bytes_sent_by_party(asked)
    client = sum(answer.bytes_sent + answer.bytes_received for answer in batches)
    clear = predict_logits(model_with(plan, source.arrays["weights"]), test.images).numpy()
    return Outcome(
        facts={
            **{name: source.facts[name] for name in _INHERITED if name in source.facts},
            **_agreement(logits, clear, threshold=source.facts["threshold"]),
            "seconds": round(seconds, 3),
            "bytes": sum(by_party) + client,
            "bytes_by_party": by_party,
            "bytes_of_client": client,
            "latency_s": round(statistics.median(one.latency_s for one in singles), 4),
            "rounds_online": asked.rounds,
            "ring_bits": opened.plan.ring.bits,
            "batch": batch,
        },
        arrays={"probabilities": probabilities_of(logits)},
    )


_INHERITED = ("threshold", "threshold_from", "epsilon", "delta", "model", "plan_hash", "images")


def _agreement(logits: npt.NDArray[Any], clear: npt.NDArray[Any], *, threshold: float) -> dict[str, Any]:
    """How many labels are the same as in clear, and the largest difference of a logit."""
    labels = [probabilities_of(values) >= threshold for values in (logits, clear)]
    return {
        "same_labels": int((labels[0] == labels[1]).sum()),
        "asked_images": len(logits),
        "largest_logit_difference": float(np.abs(logits - clear).max()),
    }
