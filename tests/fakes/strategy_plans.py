"""For every strategy, a plan that it can run: small, and with what it needs and no other does."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from libs.fl.strategy_parameters import Strategy
from libs.fl.training_plan import TrainingPlan

NEEDS: Mapping[Strategy, Mapping[str, Any]] = {
    Strategy.FEDAVG: {},
    Strategy.FEDPROX: {"proximal": {"mu": 0.1}},
    Strategy.FEDADAM: {"server_optimizer": {"learning_rate": 0.05}},
    Strategy.FEDYOGI: {"server_optimizer": {"learning_rate": 0.05}},
    Strategy.FEDBN: {},
    Strategy.SCAFFOLD: {"momentum": 0.0},
}


def plan_with(strategy: Strategy, **changes: Any) -> TrainingPlan:
    """A plan of three rounds for images of 28 pixels."""
    values = {"model": "small_cnn", "image_size": 28, "rounds": 3, "learning_rate": 0.03, "batch_size": 16}
    return TrainingPlan.checked({**values, "strategy": strategy, **NEEDS[strategy], **changes})
