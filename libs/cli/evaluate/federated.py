"""A federated study in one process, in the ring's arithmetic: the weights that real services would end with.

Every contribution is weighed, rounded and added modulo 2^32 as in libs/fl/README.md. Shares of a number add
up to it exactly, so dealing and opening them changes no digit; the row "secure" does it for real.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from hashlib import sha256

import numpy as np
import numpy.typing as npt
from torch import nn

from libs.core.secret import Secret
from libs.data.imageset import ImageSet
from libs.fl.local_training import train_locally, training_seed
from libs.fl.metrics import METRICS_LENGTH, RoundMetrics, decode_metrics, encode_metrics
from libs.fl.private_randomness import PrivateRandomness
from libs.fl.strategies.registry import STRATEGIES
from libs.fl.training_plan import TrainingPlan
from libs.fl.update_encoding import decode_vector, encode_update, encode_weights
from libs.fl.vectorise import load_state_vector, state_vector
from libs.models.registry import build_model
from libs.mpc.prg import SEED_BYTES
from libs.mpc.ring import Ring


@dataclass(frozen=True)
class Federated:
    """`module` with the last weights; `metrics` of every round, summed over hospitals."""

    module: nn.Module
    metrics: list[RoundMetrics]


def train_federated(
    parts: Mapping[str, ImageSet], plan: TrainingPlan, *, on_progress: Callable[[float], None]
) -> Federated:
    """All rounds over all hospitals, one after the other. Errors as `train_locally`."""
    weights = STRATEGIES[plan.strategy].weights({name: len(part) for name, part in parts.items()})
    module = fresh_model(plan)
    version = encode_weights(state_vector(module), scale_bits=plan.scale_bits)
    history = []
    done, all_of_them = 0, plan.rounds * len(parts)
    for round_number in range(1, plan.rounds + 1):
        total, metrics = Ring.RING_32.zeros(version.shape), np.zeros(METRICS_LENGTH, np.uint32)
        for hospital, part in parts.items():
            load_state_vector(module, decode_vector(version, scale_bits=plan.scale_bits))
            result = train_locally(
                module,
                part,
                plan,
                round_number=round_number,
                seed=training_seed(plan.seed, hospital=hospital, round_number=round_number),
                randomness=None if plan.privacy is None else _noise(plan, hospital, round_number),
            )
            total += encode_update(
                result.update, weight=weights[hospital], scale_bits=plan.scale_bits, bound=plan.update_bound
            )
            metrics += encode_metrics(result.metrics)
            done += 1
            on_progress(done / all_of_them)
        version = version + total
        history.append(decode_metrics(metrics))
    load_state_vector(module, decode_vector(version, scale_bits=plan.scale_bits))
    return Federated(module=module, metrics=history)


def fresh_model(plan: TrainingPlan) -> nn.Module:
    """The plan's architecture with its first weights."""
    return build_model(
        plan.model, channels=plan.channels, classes=plan.classes, size=plan.image_size, seed=plan.seed
    )


def model_with(plan: TrainingPlan, weights: npt.NDArray[np.float32]) -> nn.Module:
    """The plan's architecture with these weights (a state vector), in evaluation mode."""
    module = fresh_model(plan)
    load_state_vector(module, weights)
    return module.eval()


def _noise(plan: TrainingPlan, hospital: str, round_number: int) -> PrivateRandomness:
    """Noise that the plan's hash repeats, so that the table can be made again.

    Whoever knows the plan knows this noise: such a model shows how good one is, and is not itself private.
    """
    text = f"trefoil-evaluate-noise/{plan.hash}/{hospital}/{round_number}"
    return PrivateRandomness(Secret(sha256(text.encode()).digest()[:SEED_BYTES]))
