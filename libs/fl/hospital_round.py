"""What one hospital does in one training round, whichever the strategy: from versions to a contribution.

The node's worker and the simulation both call this, so that they cannot differ.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from libs.data.imageset import ImageSet
from libs.fl.local_training import train_locally, training_seed
from libs.fl.metrics import RoundMetrics, encode_metrics
from libs.fl.private_randomness import PrivateRandomness
from libs.fl.round_rules import max_norm_of, within_noise
from libs.fl.strategies.registry import strategy_of
from libs.fl.strategies.strategy import Opened, OwnState, Start
from libs.fl.training_plan import TrainingPlan
from libs.fl.update_encoding import encode_update
from libs.fl.vectorise import layout_of, load_state_vector, slots_of
from libs.fl.versions import first_module
from libs.mpc.ring import RingArray


@dataclass(frozen=True)
class Trained:
    """`update` (vectors * parameters,), not weighed yet; `own` is kept by the hospital, None for nothing."""

    update: npt.NDArray[np.floating]
    metrics: RoundMetrics
    own: OwnState | None

    def __repr__(self) -> str:
        return f"Trained(update=<{self.update.size} values, redacted>, metrics=<redacted>)"


def train_round(
    plan: TrainingPlan,
    imageset: ImageSet,
    *,
    hospital: str,
    round_number: int,
    opened: Opened,
    own: OwnState | None = None,
    on_progress: Callable[[float], None] | None = None,
    randomness: PrivateRandomness | None = None,
) -> Trained:
    """Train from what the versions before this round mean, as the plan's strategy says.

    `own` is what this hospital kept from the last of its rounds that counted. Without privacy a function of
    the arguments alone (for one number of torch threads). Errors as `train_locally`, and FailedPrecondition
    when `own` is not of this model.
    """
    strategy, module = strategy_of(plan), first_module(plan)
    start = Start(
        opened=opened,
        own=own,
        layout=layout_of(module),
        learning_rate=plan.learning_rate_in(round_number=round_number),
        last_round=round_number == plan.rounds,
    )
    load_state_vector(module, strategy.start_weights(start))
    result = train_locally(
        module,
        imageset,
        plan,
        round_number=round_number,
        seed=training_seed(plan.seed, hospital=hospital, round_number=round_number),
        on_progress=on_progress,
        randomness=randomness,
        correction=strategy.correction(start, slots_of(module)),
    )
    finished = strategy.finish(start, result.update, steps=result.steps)
    return Trained(
        within_norm(finished.update, plan, round_number=round_number), result.metrics, finished.own
    )


def within_norm(
    update: npt.NDArray[np.floating], plan: TrainingPlan, *, round_number: int
) -> npt.NDArray[np.floating]:
    """The update, scaled down to the plan's largest norm if it is longer: direction kept, shape too."""
    largest = max_norm_of(plan, round_number=round_number) / 2**plan.scale_bits
    norm = float(np.linalg.norm(update.astype(np.float64))) if largest else 0.0
    return update.astype(np.float64) * (largest / norm) if norm > largest else update


def encode_contribution(plan: TrainingPlan, trained: Trained, *, weight: Fraction) -> RingArray:
    """[round(weight * update * 2^scale_bits) | metrics] in Z_2^32. Errors as the encodings'."""
    bounded = within_noise(trained.update, plan, weight=weight)
    update = encode_update(bounded, weight=weight, scale_bits=plan.scale_bits, bound=plan.update_bound)
    return np.concatenate([update, encode_metrics(trained.metrics)])
