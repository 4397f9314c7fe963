"""A federated study in one process (libs/fl/simulate.py): the weights that real services would end with.

The row "secure" holds the same study over real services; the report says whether its weights are the same.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from hashlib import sha256

import numpy as np
import numpy.typing as npt
from torch import nn

from libs.core.secret import Secret
from libs.data.imageset import ImageSet
from libs.fl.private_randomness import PrivateRandomness
from libs.fl.simulate import Simulation, simulate
from libs.fl.training_plan import TrainingPlan
from libs.fl.vectorise import load_state_vector
from libs.fl.versions import first_module
from libs.mpc.prg import SEED_BYTES


def train_federated(
    parts: Mapping[str, ImageSet], plan: TrainingPlan, *, on_progress: Callable[[float], None]
) -> Simulation:
    """All rounds over all hospitals, one after the other. Errors as `simulate`.

    Noise is drawn from the plan's hash, so that a table can be made again. Whoever knows the plan knows
    it: such a model shows how good one is, and is not itself private.
    """

    def noise(hospital: str, round_number: int) -> PrivateRandomness:
        text = f"trefoil-evaluate-noise/{plan.hash}/{hospital}/{round_number}"
        return PrivateRandomness(Secret(sha256(text.encode()).digest()[:SEED_BYTES]))

    return simulate(
        plan,
        parts,
        on_round=lambda simulated: on_progress(simulated.number / plan.rounds),
        randomness=noise if plan.privacy is not None else None,
    )


def model_with(plan: TrainingPlan, weights: npt.NDArray[np.float32]) -> nn.Module:
    """The plan's architecture with these weights (a state vector), in evaluation mode."""
    module = first_module(plan)
    load_state_vector(module, weights)
    return module.eval()
