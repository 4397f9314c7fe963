"""All strategies by their names in plans: a new one is a file here, its name there, and a line below."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from libs.fl.strategies.fedavg import FedAvg
from libs.fl.strategies.strategy import Strategy
from libs.fl.training_plan import Strategy as Name

STRATEGIES: Mapping[Name, Strategy] = MappingProxyType({Name.FEDAVG: FedAvg()})
