"""The client's side of a prediction: mask the image, add up the result."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput
from libs.mpc.fixed_point import FixedPoint
from libs.mpc.prg import expand_seed
from libs.mpc.ring import RingArray
from libs.secure_nn.plan import Plan


def mask_input(
    plan: Plan, images: npt.NDArray[np.floating[Any]], first_seed: bytes, second_seed: bytes
) -> RingArray:
    """m = x + l1 + l2 for both evaluators, from the seed that each of them gave. Shape (B, C, H, W).

    `images` are preprocessed floats. Raises `InvalidInput` on another shape, NaN, or values that the
    plan's calibration did not foresee, which would overflow silently.
    """
    if images.ndim != 4 or images.shape[1:] != plan.input_shape or len(images) == 0:
        wanted = "x".join(map(str, plan.input_shape))
        raise InvalidInput(f"The model takes images of {wanted} (channels, rows, columns).")
    bound = 2.0 ** plan.values[plan.steps[0].output].bound
    if not np.isfinite(images).all() or np.abs(images).max() >= bound:
        raise InvalidInput(
            f"The image has pixels that are not numbers or are beyond +-{bound:g}, which the model was not "
            "calibrated for. Preprocess it as in training."
        )
    if first_seed == second_seed:
        raise InvalidInput("Both evaluators gave the same mask, so it would hide nothing. Ask again.")
    encoded = FixedPoint(plan.ring, plan.input_scale).encode(images)
    for seed in (first_seed, second_seed):
        encoded += expand_seed(seed, encoded.size, plan.ring).reshape(encoded.shape)
    return encoded


def reveal_output(plan: Plan, first: RingArray, second: RingArray, *, batch: int) -> npt.NDArray[np.float64]:
    """The result that only the client sees, from the evaluators' shares. Shape (batch, *output shape)."""
    shape = (batch, *plan.output_shape)
    for share in (first, second):
        if share.size != np.prod(shape) or share.dtype != plan.ring.dtype:
            raise InvalidInput("An evaluator returned a share of another shape than the model's output.")
    total = (first.reshape(-1) + second.reshape(-1)).reshape(shape)
    return FixedPoint(plan.ring, plan.output_scale).decode(total)
