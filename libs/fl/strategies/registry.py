"""All strategies by their names in plans: a new one is a file here, its name there, and a line below."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from types import MappingProxyType

from libs.fl.strategies.fedadam import FedAdam
from libs.fl.strategies.fedavg import FedAvg
from libs.fl.strategies.fedbn import FedBN
from libs.fl.strategies.fedprox import FedProx
from libs.fl.strategies.fedyogi import FedYogi
from libs.fl.strategies.scaffold import Scaffold
from libs.fl.strategies.strategy import Strategy
from libs.fl.strategy_parameters import Strategy as Name
from libs.fl.training_plan import TrainingPlan


def strategy_of(plan: TrainingPlan) -> Strategy:
    """The plan's strategy with the plan's numbers."""
    return STRATEGIES[plan.strategy](plan)


def _server(plan: TrainingPlan) -> dict[str, float]:
    assert plan.server_optimizer is not None  # the plan was refused without it
    return plan.server_optimizer.model_dump()


def _fedprox(plan: TrainingPlan) -> Strategy:
    assert plan.proximal is not None  # the plan was refused without it
    return FedProx(mu=plan.proximal.mu)


STRATEGIES: Mapping[Name, Callable[[TrainingPlan], Strategy]] = MappingProxyType(
    {
        Name.FEDAVG: lambda _plan: FedAvg(),
        Name.FEDPROX: _fedprox,
        Name.FEDADAM: lambda plan: FedAdam(**_server(plan)),
        Name.FEDYOGI: lambda plan: FedYogi(**_server(plan)),
        Name.FEDBN: lambda _plan: FedBN(),
        Name.SCAFFOLD: lambda plan: Scaffold(fraction=plan.client_fraction),
    }
)
