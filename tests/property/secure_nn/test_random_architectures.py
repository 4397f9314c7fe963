"""Any small network of supported layers compiles, and the ring gives what torch gives."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import nn

from libs.core.errors import InvalidInput
from libs.mpc.ring import Ring
from libs.secure_nn.plan import Plan
from tests.conformance.secure_nn.oracle import compared, settled

SIDE, CHANNELS = 12, 2
DECLARED_BITS = 8
"""Errors stay below 2^-8 of the output's calibrated bound for networks as shallow as these."""


class Residual(nn.Module):
    """x + body(x), or body(x) beside x."""

    def __init__(self, body: nn.Module, *, join: bool) -> None:
        super().__init__()
        self.body, self.join = body, join

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Same image size."""
        y: torch.Tensor = self.body(x)
        return torch.cat([x, y], dim=1) if self.join else y + x


class Clamp(nn.Module):
    """torch.clamp with one limit at least."""

    def __init__(self, low: float, high: float) -> None:
        super().__init__()
        self.low, self.high = (None if math.isinf(limit) else limit for limit in (low, high))
        if self.low is None and self.high is None:
            self.low = -1.0

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Element by element."""
        return torch.clamp(x, self.low, self.high)


def _layer(draw: Any, channels: int, side: int, *, depth: int) -> tuple[nn.Module, int, int]:
    """A random layer that fits, with its output's channels and side."""
    kinds = ["relu", "norm", "dropout", "clamp"]
    kinds += ["conv"] if side >= 3 else []
    kinds += ["max", "avg", "adaptive"] if side >= 4 else []
    kinds += ["add", "cat"] if depth and channels <= 8 else []
    kind = draw(st.sampled_from(kinds))
    if kind == "conv":
        outputs, stride = draw(st.integers(1, 3)) * channels, draw(st.integers(1, 2))
        kernel, padding = draw(st.sampled_from([(1, 0), (3, 0), (3, 1), (2, 1)]))
        groups = draw(st.sampled_from([1, channels]))
        conv = nn.Conv2d(channels, outputs, kernel, stride, padding, groups=groups, bias=draw(st.booleans()))
        return conv, outputs, (side + 2 * padding - kernel) // stride + 1
    if kind == "max" and draw(st.booleans()):
        kernel, stride = draw(st.integers(2, 4)), draw(st.integers(2, 4))
        pool = nn.MaxPool2d(kernel, stride, kernel // 2, ceil_mode=True)
        return pool, channels, pool(torch.zeros(1, side, side)).shape[-1]
    if kind in ("max", "avg"):
        kernel, stride, padding = draw(st.integers(1, 3)), draw(st.integers(1, 3)), draw(st.integers(0, 1))
        padding = min(padding, kernel // 2)
        pool = (nn.MaxPool2d if kind == "max" else nn.AvgPool2d)(kernel, stride, padding)
        return pool, channels, (side + 2 * padding - kernel) // stride + 1
    if kind == "adaptive":
        size = draw(st.integers(1, side + 3))
        return nn.AdaptiveAvgPool2d(size), channels, size
    if kind in ("add", "cat"):
        body: list[nn.Module] = [nn.Conv2d(channels, channels, 3, padding=1)]
        for _ in range(draw(st.integers(0, 3))):
            body.append(draw(st.sampled_from([nn.ReLU(), nn.BatchNorm2d(channels), nn.AvgPool2d(3, 1, 1)])))
        join = kind == "cat"
        return Residual(nn.Sequential(*body), join=join), channels * (2 if join else 1), side
    simple: dict[str, Callable[[], nn.Module]] = {
        "relu": nn.ReLU,
        "norm": lambda: nn.BatchNorm2d(channels),
        "dropout": nn.Dropout,
        "clamp": lambda: Clamp(
            draw(st.sampled_from([-math.inf, -3.0, -1.0, 0.0, 0.5])),
            draw(st.sampled_from([0.75, 2.0, 6.0, math.inf])),
        ),
    }
    return simple[kind](), channels, side


@st.composite
def networks(draw: Any) -> nn.Module:
    """One to six layers, sometimes with a linear end."""
    torch.manual_seed(draw(st.integers(0, 2**16)))
    channels, side, found = CHANNELS, SIDE, []
    for depth in range(draw(st.integers(1, 6))):
        layer, channels, side = _layer(draw, channels, side, depth=depth)
        found.append(layer)
    if draw(st.booleans()):
        found += [nn.Flatten(), nn.Linear(channels * side * side, 3)]
    return nn.Sequential(*found)


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(network=networks(), ring=st.sampled_from([None, Ring.RING_64]))
def test_random_networks_compile_and_agree_with_torch(network: nn.Module, ring: Ring | None) -> None:
    images = torch.randn(16, CHANNELS, SIDE, SIDE)
    comparison = compared(settled(network, images, passes=4), images, ring=ring)
    plan = comparison.plan
    assert Plan.from_json(plan.to_json()) == plan
    assert comparison.float_error < 1e-4 * max(1.0, comparison.largest)
    assert comparison.ring_error < 2.0 ** (plan.values[-1].bound - DECLARED_BITS)


_JSON = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(allow_nan=False),
    st.text(max_size=5),
    st.lists(st.integers(0, 5), max_size=3),
    st.just({}),
)


def _example_plan() -> Plan:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.MaxPool2d(2), nn.Flatten(), nn.Linear(75, 2))
    return compared(network, torch.randn(4, 2, 12, 12)).plan


EXAMPLE = _example_plan().to_json()


def _places(document: Any) -> list[tuple[Any, Any]]:
    """Every container and key in it."""
    found: list[tuple[Any, Any]] = []
    keys = document.keys() if isinstance(document, dict) else range(len(document))
    for key in keys:
        found.append((document, key))
        if isinstance(document[key], (dict, list)):
            found += _places(document[key])
    return found


@settings(max_examples=60, deadline=None)
@given(data=st.data(), value=_JSON)
def test_a_changed_plan_is_refused_or_another_plan(data: st.DataObject, value: object) -> None:
    document = json.loads(EXAMPLE)
    places = _places(document)
    container, key = places[data.draw(st.integers(0, len(places) - 1))]
    container[key] = value
    changed = json.dumps(document, sort_keys=True, separators=(",", ":")).encode()
    try:
        plan = Plan.from_json(changed)
    except InvalidInput:
        return
    assert plan.to_json() == changed
    assert (plan.hash == Plan.from_json(EXAMPLE).hash) == (changed == EXAMPLE)


@settings(max_examples=100, deadline=None)
@given(data=st.data())
def test_bytes_that_are_no_plan_are_refused_and_nothing_else_happens(data: st.DataObject) -> None:
    start = data.draw(st.integers(0, len(EXAMPLE) - 1))
    noise = data.draw(st.binary(min_size=1, max_size=8))
    changed = EXAMPLE[:start] + noise + EXAMPLE[start + data.draw(st.integers(0, 8)) :]
    with contextlib.suppress(InvalidInput):
        assert Plan.from_json(changed).to_json() == changed
