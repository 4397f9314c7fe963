"""What a plan holds contributions to, in ring units; coordinator, hospitals and parties compare it."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import numpy.typing as npt

from libs.core.errors import FailedPrecondition, InvalidInput
from libs.fl.privacy import sum_noise_multiplier
from libs.fl.privacy_parameters import PrivacyUnit
from libs.fl.strategy_parameters import Strategy
from libs.fl.training_plan import TrainingPlan

Update = npt.NDArray[np.floating]

LEAST_STD_UNITS, MOST_STD_UNITS = 64, 2**26
"""From here on the sum of two parties' discrete noise is a discrete Gaussian to all that a float can tell,
and up to here noise on a sum stays far from wrapping around."""


def max_norm_of(plan: TrainingPlan, *, round_number: int) -> int:
    """The L2 norm that an update may have before it is weighed, in ring units; 0 without a check.

    The first round's is the wider one, because BatchNorm moves furthest then. With FedBN that movement is
    contributed in the last round, and the wider norm is that round's.
    """
    if plan.contribution_check is None:
        return 0
    widest = plan.rounds if plan.strategy is Strategy.FEDBN else 1
    norm = plan.contribution_check.max_norm_in(round_number=1 if round_number == widest else 2)
    return max(1, int(norm * (1 << plan.scale_bits)))


def noise_std_of(plan: TrainingPlan) -> int:
    """Standard deviation, in ring units, of the noise that any two parties add to a round's sum; 0: none."""
    if plan.privacy is None or plan.privacy.unit is not PrivacyUnit.HOSPITAL:
        return 0
    units = largest_part_of(plan) * sum_noise_multiplier(plan)
    if not LEAST_STD_UNITS <= units <= MOST_STD_UNITS:
        raise InvalidInput(
            f"The noise on a round's sum would be {units:.3g} units in the last place, and must lie between "
            f"{LEAST_STD_UNITS} and {MOST_STD_UNITS}. Change scale_bits or contribution_check.max_norm."
        )
    return math.ceil(units)


def largest_part_of(plan: TrainingPlan) -> float:
    """The L2 norm, in ring units, of the most that a hospital may put into a sum with noise on it."""
    weight = plan.privacy.largest_weight if plan.privacy is not None else 1.0
    return weight * max_norm_of(plan, round_number=1)


def within_noise(update: Update, plan: TrainingPlan, *, weight: Fraction) -> Update:
    """The update as far as the noise on the sum hides it; shape kept. As it is where the parties add none.

    Scaled down until, weighed and rounded to whole units, its norm is at most `largest_part_of`: rounding
    adds at most half a unit a coordinate. Raises FailedPrecondition for a hospital that counts for more than
    the plan's `largest_weight`, InvalidInput where rounding alone is more than the norm.
    """
    if not noise_std_of(plan):
        return update
    assert plan.privacy is not None
    if weight > plan.privacy.largest_weight:
        raise FailedPrecondition(
            "This hospital would count for more in the round than the plan's largest_weight, for which the "
            "noise is made, so it sends nothing. Propose a plan with a larger one, or with more hospitals."
        )
    most = largest_part_of(plan) - math.sqrt(update.size) / 2
    if most <= 0:
        raise InvalidInput("max_norm is less than rounding changes. Raise it, or scale_bits.")
    exact = update.astype(np.float64)
    norm = float(np.linalg.norm(exact)) * float(weight) * 2**plan.scale_bits
    # The plan's norm is that of the update before it is weighed, whatever the weight.
    allowed = min(most, float(weight) * max_norm_of(plan, round_number=1))
    return exact * (allowed / norm * (1 - 1e-12)) if norm > allowed else exact


def compares_releases(plan: TrainingPlan) -> bool:
    """Whether the parties leave out releases that differ from most: where contributions are checked at all.

    They can in the 32-bit ring only. A model that needs the wider one is not released under such a plan: the
    ring follows from bounds that any one hospital can raise, so it must not decide whether there is a check.
    """
    return plan.contribution_check is not None
