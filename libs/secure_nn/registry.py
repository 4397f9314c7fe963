"""Which file reads which torch module, function or method."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from libs.core.errors import Bug
from libs.secure_nn.errors import LayerUnsupported
from libs.secure_nn.graph import Operation

Target = type[nn.Module] | Callable[..., Any] | str
"""A module class, a function, or the name of a tensor method."""


@dataclass(frozen=True)
class Call:
    """One call in a traced model, with everything that is not a tensor already resolved.

    Tensors among `args` and `kwargs` are examples with the right shape and a batch of 2.
    """

    module: nn.Module | None
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    result: torch.Tensor

    @property
    def x(self) -> torch.Tensor:
        """The example of the first input."""
        first: torch.Tensor = self.args[0] if self.args else next(iter(self.kwargs.values()))
        return first

    def option(self, name: str, *, position: int, default: Any) -> Any:
        """A module's attribute, or a function's argument by name or position."""
        if self.module is not None:
            return getattr(self.module, name)
        if name in self.kwargs:
            return self.kwargs[name]
        return self.args[position] if len(self.args) > position else default

    def require(self, condition: bool, reason: str, *, way_round: str) -> None:
        """Refuse the layer unless the condition holds."""
        if not condition:
            raise LayerUnsupported(reason, way_round=way_round)


Reader = Callable[[Call], Operation]

_READERS: dict[Target, Reader] = {}


def reads(*targets: Target) -> Callable[[Reader], Reader]:
    """Register a function that turns calls of these targets into an operation."""

    def register(reader: Reader) -> Reader:
        for target in targets:
            if target in _READERS:
                raise Bug(f"two layers read {target}")
            _READERS[target] = reader
        return reader

    return register


def reader_of(target: Target) -> Reader | None:
    """The reader of exactly this target: a subclass may compute something else."""
    return _READERS.get(target)


def pair(value: int | tuple[int, ...] | list[int]) -> tuple[int, int]:
    """torch's one number or two, as two."""
    if isinstance(value, int):
        return value, value
    first, *rest = value
    return first, rest[0] if rest else first
