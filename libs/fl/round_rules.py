"""What a plan holds contributions to, in ring units; coordinator, hospitals and parties compare it."""

from __future__ import annotations

from libs.fl.strategy_parameters import Strategy
from libs.fl.training_plan import TrainingPlan


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
    del plan  # no plan asks for it yet
    return 0
