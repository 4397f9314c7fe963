"""What a plan says about its strategy beyond the name, and which combinations make no sense. No torch."""

from __future__ import annotations

from enum import StrEnum
from typing import TYPE_CHECKING

from pydantic import Field

from libs.fl.frozen import Frozen
from libs.models.private import TRAIN_PRIVATELY

if TYPE_CHECKING:
    from libs.fl.training_plan import TrainingPlan


class Strategy(StrEnum):
    """How contributions become the next version of the model."""

    FEDAVG = "fedavg"
    FEDPROX = "fedprox"
    FEDADAM = "fedadam"
    FEDYOGI = "fedyogi"
    FEDBN = "fedbn"
    SCAFFOLD = "scaffold"


class EarlyStoppingMetric(StrEnum):
    """What the hospitals judge rounds by: summed over all of them, on their validation images."""

    LOSS = "loss"
    AUC = "auc"


class Proximal(Frozen):
    """FedProx's pull towards the weights that a round starts from."""

    mu: float = Field(gt=0, le=100, description="added to the loss: mu / 2 times the squared distance")


class ServerOptimizer(Frozen):
    """Adam or Yogi over the rounds' mean updates (Reddi et al., 2021)."""

    learning_rate: float = Field(default=0.01, gt=0, le=10)
    beta_1: float = Field(default=0.9, ge=0, lt=1)
    beta_2: float = Field(default=0.99, ge=0, lt=1)
    tau: float = Field(default=1e-3, gt=0, le=1, description="below it, no step grows by dividing")


class StepDecay(Frozen):
    """The learning rate after each `every_rounds` rounds, times `factor`."""

    every_rounds: int = Field(ge=1, le=1000)
    factor: float = Field(gt=0, lt=1)


class EarlyStopping(Frozen):
    """When the hospitals end training, and by which of the metrics that are opened to them."""

    metric: EarlyStoppingMetric = EarlyStoppingMetric.LOSS
    patience: int = Field(ge=1, le=1000, description="rounds without improvement after which training ends")
    min_delta: float = Field(default=0.0, ge=0, le=100, description="smaller gains are no improvement")


_SERVER = (Strategy.FEDADAM, Strategy.FEDYOGI)


def strategy_problem(plan: TrainingPlan) -> str:
    """Why this plan's strategy cannot be, in words for its author; empty when it can."""
    strategy = plan.strategy
    if (plan.proximal is not None) != (strategy is Strategy.FEDPROX):
        return "proximal belongs to the strategy fedprox, which needs it: give both or neither"
    if (plan.server_optimizer is not None) != (strategy in _SERVER):
        return "server_optimizer belongs to fedadam and fedyogi, which need it: give both or neither"
    problems = {
        Strategy.FEDPROX: _fedprox_problem,
        Strategy.FEDBN: _fedbn_problem,
        Strategy.SCAFFOLD: _scaffold_problem,
    }
    return problems[strategy](plan) if strategy in problems else ""


def _fedprox_problem(plan: TrainingPlan) -> str:
    if plan.privacy is not None:
        return "fedprox changes gradients after they were clipped, so it does not go with privacy: use fedavg"
    return ""


def _fedbn_problem(plan: TrainingPlan) -> str:
    if plan.model in TRAIN_PRIVATELY:
        return f"fedbn keeps BatchNorm at the hospitals, and {plan.model} has none: use fedavg"
    if plan.early_stopping is not None:
        return (
            "fedbn shares BatchNorm in the last round, which early_stopping would not reach: leave one of "
            "them out"
        )
    if plan.rounds < 2:
        return "fedbn shares BatchNorm in the last round, so with one round it is fedavg: give it more rounds"
    return ""


def _scaffold_problem(plan: TrainingPlan) -> str:
    if plan.privacy is not None:
        return "scaffold's control variates are gradients without noise: use fedavg with privacy"
    if plan.optimizer.value != "sgd" or plan.momentum:
        return (
            "scaffold learns each hospital's mean gradient from plain steps: set optimizer to sgd and "
            "momentum to 0"
        )
    if plan.contribution_check is not None:
        return (
            "contribution_check measures weights, and scaffold's contributions hold control variates too: "
            "leave it out, or use fedavg"
        )
    return ""
