"""Who may fetch and who may ask what a training plan makes, as identities.

The coordinator tells it to the parties, and every hospital states it in the terms of its contribution: from
one plan, by one rule, so that the two can be compared.
"""

from __future__ import annotations

from collections.abc import Iterable

from libs.fl.training_plan import Download, TrainingPlan


def version_readers(plan: TrainingPlan, *, creator: str, hospitals: Iterable[str]) -> tuple[str, ...]:
    """Who may fetch versions of the weights: the hospitals, which train them, and the creator if the plan
    lets him. The released model may be fetched by nobody.
    """
    return (creator, *hospitals) if plan.model_access.download is Download.READERS else tuple(hospitals)


def named_askers(plan: TrainingPlan, *, creator: str) -> tuple[str, ...]:
    """Who may ask the released model, if not anyone may: the study's creator, and whom the plan names."""
    return tuple(sorted({creator, *plan.model_access.ask}))
