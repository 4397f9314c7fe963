"""All strategies by the name that training plans use. A new one is a file here and one line below."""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from libs.core.errors import InvalidInput
from libs.fl.strategies.fedavg import FedAvg
from libs.fl.strategies.strategy import Strategy

STRATEGIES: Mapping[str, Strategy] = MappingProxyType({"fedavg": FedAvg()})


def strategy(name: str) -> Strategy:
    """The strategy of that name. Raises InvalidInput naming the known ones."""
    try:
        return STRATEGIES[name]
    except KeyError:
        raise InvalidInput(f"Unknown strategy {name!r}. Known: {', '.join(sorted(STRATEGIES))}.") from None
