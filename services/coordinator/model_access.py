"""Who may fetch and ask what a study makes, as the parties are told.

The hospitals state the same in the terms of their contributions, by the plan that their owners approved; a
party takes no contribution into a round that lets more people do more. So nothing here is believed.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Self

from libs.fl.model_access import named_askers
from libs.fl.training_plan import TrainingPlan
from services.coordinator.domain import Study


@dataclass(frozen=True)
class ModelUse:
    """Who may ask a model: everybody, or those named; and how many predictions, 0 for any number."""

    anyone: bool = False
    askers: tuple[str, ...] = ()
    max_predictions: int = 0

    def to_data(self) -> dict[str, Any]:
        """For the database."""
        return {"anyone": self.anyone, "askers": list(self.askers), "max_predictions": self.max_predictions}

    @classmethod
    def from_data(cls, data: dict[str, Any]) -> Self:
        """What `to_data` gave."""
        return cls(data["anyone"], tuple(data["askers"]), data["max_predictions"])


NOBODY = ModelUse()


def use_of(study: Study) -> ModelUse:
    """Who may ask the model that this study releases, as long as no hospital says otherwise."""
    plan = TrainingPlan.from_json(study.plan_json)
    access = plan.model_access
    askers = () if access.ask_anyone else named_askers(plan, creator=study.creator)
    return ModelUse(access.ask_anyone, askers, access.max_predictions or 0)
