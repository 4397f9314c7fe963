"""A profile by layer, and the rows of its table."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from libs.cli.bench.profile import StepProfile
from libs.cli.output import human_bytes

PRODUCT, RELU, OPENING, REST = "products", "ReLU", "openings", "the rest"
GROUPS = (PRODUCT, RELU, OPENING, REST)
_GROUP_OF = {"conv2d": PRODUCT, "linear": PRODUCT, "relu": RELU, "open": OPENING}
COLUMNS = (
    "layer",
    ">online",
    *(f">{group}" for group in GROUPS),
    ">rounds",
    ">each way",
    ">dealing",
    ">preparing",
    ">dealt",
)


@dataclass(frozen=True)
class LayerProfile:
    """All steps of one layer. Seconds and bytes as in `StepProfile`; `online_s_by_group`: of `GROUPS`."""

    name: str
    online_s_by_group: dict[str, float]
    deal_s: float
    prepare_s: float
    rounds: int
    online_bytes: int
    dealt_bytes: int

    @property
    def online_s(self) -> float:
        """Of all groups."""
        return sum(self.online_s_by_group.values())


def by_layer(steps: Sequence[StepProfile]) -> list[LayerProfile]:
    """In the order of the network."""
    members: dict[str, list[StepProfile]] = {}
    for step in steps:
        members.setdefault(step.layer, []).append(step)
    return [_added_up(name, mine) for name, mine in members.items()]


def _added_up(name: str, steps: Sequence[StepProfile]) -> LayerProfile:
    seconds = dict.fromkeys(GROUPS, 0.0)
    for step in steps:
        seconds[_GROUP_OF.get(step.kind, REST)] += step.online_s
    return LayerProfile(
        name=name,
        online_s_by_group=seconds,
        deal_s=sum(step.deal_s for step in steps),
        prepare_s=sum(step.prepare_s for step in steps),
        rounds=sum(step.rounds for step in steps),
        online_bytes=sum(step.online_bytes for step in steps),
        dealt_bytes=sum(step.dealt_bytes for step in steps),
    )


def costliest(layers: Sequence[LayerProfile], *, count: int) -> list[LayerProfile]:
    """The `count` layers that take longest online, in the order of the network, and all others as one."""
    if len(layers) <= count:
        return list(layers)
    chosen = sorted(layers, key=lambda layer: layer.online_s, reverse=True)[:count]
    others = [layer for layer in layers if layer not in chosen]
    return [layer for layer in layers if layer in chosen] + [
        in_all(others, name=f"{len(others)} other layers")
    ]


def in_all(layers: Sequence[LayerProfile], *, name: str) -> LayerProfile:
    """Several layers as one."""
    return LayerProfile(
        name=name,
        online_s_by_group={
            group: sum(layer.online_s_by_group[group] for layer in layers) for group in GROUPS
        },
        deal_s=sum(layer.deal_s for layer in layers),
        prepare_s=sum(layer.prepare_s for layer in layers),
        rounds=sum(layer.rounds for layer in layers),
        online_bytes=sum(layer.online_bytes for layer in layers),
        dealt_bytes=sum(layer.dealt_bytes for layer in layers),
    )


def layer_rows(layers: Sequence[LayerProfile]) -> list[list[str]]:
    """Cells under `COLUMNS`; seconds in milliseconds."""
    return [
        [
            layer.name,
            _ms(layer.online_s),
            *(_ms(layer.online_s_by_group[group]) for group in GROUPS),
            str(layer.rounds),
            human_bytes(layer.online_bytes),
            _ms(layer.deal_s),
            _ms(layer.prepare_s),
            human_bytes(layer.dealt_bytes),
        ]
        for layer in layers
    ]


def profile_json(steps: Sequence[StepProfile]) -> dict[str, Any]:
    """Steps, and layers added up from them."""
    return {
        "steps": [asdict(step) | {"layer": step.layer} for step in steps],
        "layers": [asdict(layer) | {"online_s": layer.online_s} for layer in by_layer(steps)],
    }


def _ms(seconds: float) -> str:
    return f"{seconds * 1000:.2f} ms"
