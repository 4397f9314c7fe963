"""What a training plan costs here, by the plan and the number of images: the same for ledger and owner."""

from __future__ import annotations

import functools
from fractions import Fraction

from libs.dp.accountant import Accountant
from libs.dp.budget import Spend
from libs.dp.events import canonical_json
from libs.fl.privacy import planned_event
from libs.fl.training_plan import TrainingPlan
from services.hospital_node.domain import Dataset

Cost = tuple[bytes, Spend]
"""An event of `libs/dp/events.py` as canonical JSON, and what it takes from a budget."""


def planned_cost(training_plan: bytes, dataset: Dataset) -> Cost:
    """Of all rounds of the plan on this data set. Raises InvalidInput for a plan that cannot be."""
    return _cost(training_plan, dataset.images, runs=None)


def attempt_cost(training_plan: bytes, dataset: Dataset) -> Cost | None:
    """Of one round more; None where repeating a round tells nothing new: training is deterministic."""
    if TrainingPlan.from_json(training_plan).privacy is None:
        return None
    return _cost(training_plan, dataset.images, runs=1)


@functools.lru_cache(maxsize=64)
def _cost(training_plan: bytes, records: int, *, runs: int | None) -> Cost:
    plan = TrainingPlan.from_json(training_plan)
    event = planned_event(plan, records=records, runs=runs)
    # The shortest decimal that means this float is the number that the scientist wrote.
    delta = Fraction(repr(plan.privacy.delta)) if plan.privacy is not None else Fraction(0)
    accountant = plan.privacy.accountant if plan.privacy is not None else Accountant.RDP
    return canonical_json(event), Spend.of(event, delta=delta, accountant=accountant)
