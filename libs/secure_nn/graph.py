"""A traced model as a list of operations, in the form that calibration and lowering share."""

from __future__ import annotations

import enum
import math
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import cached_property
from typing import TYPE_CHECKING

import torch

from libs.secure_nn.values import Shape

if TYPE_CHECKING:  # the emitter lowers operations; an operation only names it
    from libs.secure_nn.emitter import Emitter


class ScaleRule(enum.Enum):
    """Who decides the scale of an operation's output."""

    ACTIVATION = "activation"
    """Chosen freely, so that the sign window fills the calibrated range: image and ReLU."""
    ACCUMULATOR = "accumulator"
    """Chosen through the weights' scale, as large as the ring has room for: products."""
    TIED = "tied"
    """The inputs' common scale, times `growth`."""


class Operation(ABC):
    """One layer. Everything about a layer is in the file of its class, in `layers/`."""

    scale_rule: ScaleRule
    needs_open = False
    """Whether it works on MASKED inputs only."""
    headroom = 0
    """Bits by which it exceeds its input's bound inside."""

    @abstractmethod
    def forward(self, *inputs: torch.Tensor) -> torch.Tensor:
        """In floats, with a batch axis; what calibration measures."""

    @abstractmethod
    def emit(self, node: Node, emitter: Emitter) -> None:
        """Append the steps that compute it, and say where the result is."""

    def growth(self, shape: Shape) -> int:
        """Output scale over input scale, for a TIED operation on an input of `shape`."""
        return 1

    @property
    def limit(self) -> float:
        """No absolute value of the output is larger, whatever the input."""
        return math.inf

    def tensors(self) -> dict[str, torch.Tensor]:
        """Weights by role, float64."""
        return {}


@dataclass(frozen=True)
class Node:
    """An operation with its place. `name` is the fx node's; `shape` is of its output, without batch."""

    name: str
    operation: Operation
    inputs: tuple[str, ...]
    shape: Shape

    def parameter(self, role: str) -> str:
        """The name of one of its tensors, in plans and bounds."""
        return f"{self.name}.{role}"


@dataclass(frozen=True)
class Graph:
    """Nodes in an order in which they can be computed; the last one is the output."""

    nodes: tuple[Node, ...]

    @cached_property
    def by_name(self) -> Mapping[str, Node]:
        """The nodes by name."""
        return {node.name: node for node in self.nodes}

    @cached_property
    def consumers(self) -> Mapping[str, tuple[Node, ...]]:
        """Who uses each node's output."""
        users: dict[str, list[Node]] = {node.name: [] for node in self.nodes}
        for node in self.nodes:
            for name in dict.fromkeys(node.inputs):
                users[name].append(node)
        return {name: tuple(nodes) for name, nodes in users.items()}

    @property
    def bound_names(self) -> tuple[str, ...]:
        """Every name that calibration must bound: values and parameters."""
        return tuple(
            name
            for node in self.nodes
            for name in (node.name, *(node.parameter(role) for role in node.operation.tensors()))
        )

    def only_consumer(self, name: str) -> Node | None:
        """The one node that uses it; None if it is the output or has several users."""
        users = self.consumers[name]
        used_once = len(users) == 1 and users[0].inputs.count(name) == 1
        return users[0] if used_once and name != self.nodes[-1].name else None

    def replaced(self, changed: Mapping[str, Node | str]) -> Graph:
        """With nodes replaced by others of the same name, or dropped in favour of the named one."""

        def target(name: str) -> str:
            while isinstance(other := changed.get(name), str):
                name = other
            return name

        kept: list[Node] = []
        for node in self.nodes:
            new = changed.get(node.name, node)
            if isinstance(new, Node):
                kept.append(replace(new, inputs=tuple(target(name) for name in new.inputs)))
        last = target(self.nodes[-1].name)
        return Graph(tuple(kept)).reaching(last)

    def reaching(self, output: str) -> Graph:
        """The nodes on which `output` depends, ending with it."""
        needed, stack = set[str](), [output]
        while stack:
            name = stack.pop()
            if name not in needed:
                needed.add(name)
                stack.extend(self.by_name[name].inputs)
        return Graph(tuple(node for node in self.nodes if node.name in needed))

    def run(self, images: torch.Tensor, visit: Callable[[Node, torch.Tensor], None]) -> None:
        """Evaluate in floats on (B, C, H, W); `visit` sees every value, which is then let go early."""
        remaining = {name: len(users) for name, users in self.consumers.items()}
        values: dict[str, torch.Tensor] = {}
        with torch.no_grad():
            for node in self.nodes:
                inputs = [values[name] for name in node.inputs] if node.inputs else [images]
                values[node.name] = node.operation.forward(*inputs)
                visit(node, values[node.name])
                for name in set(node.inputs):
                    remaining[name] -= 1
                    if not remaining[name]:
                        del values[name]
