"""A torch module and calibrated bounds into a plan that three servers can execute."""

from __future__ import annotations

from collections.abc import Mapping

from torch import nn

from libs.core.errors import InvalidInput
from libs.mpc.ring import Ring
from libs.secure_nn.emitter import emit_all
from libs.secure_nn.errors import RangeTooWide
from libs.secure_nn.graph import Graph
from libs.secure_nn.plan import Plan
from libs.secure_nn.scales import MAX_BOUND, MIN_BOUND
from libs.secure_nn.trace import build_graph


def compile_module(
    module: nn.Module,
    *,
    input_shape: tuple[int, int, int],
    bounds: Mapping[str, int],
    ring: Ring | None = None,
) -> Plan:
    """The plan for images of `input_shape` (C, H, W); `bounds` are those of `calibrate`, merged.

    Depends on the architecture and the bounds only, never on weights: whoever has both gets the
    same bytes and the same hash. The 32-bit ring is taken if every layer fits it at a useful
    precision, else the 64-bit one, unless `ring` says which.

    The plan is right for inputs that keep every value below its bound, which calibration with its
    safety factor makes likely and nothing checks at run time; beyond it results may be wrong.

    Raises UnsupportedModel (all layers at once), RangeTooWide naming the layer that fits no ring,
    and InvalidInput when the bounds are not this architecture's.
    """
    graph = build_graph(module, input_shape=input_shape)
    checked = _check_bounds(graph, bounds)
    rings = list(Ring) if ring is None else [ring]
    for candidate in rings[:-1]:
        try:
            return _lower(graph, checked, candidate)
        except RangeTooWide:
            continue
    return _lower(graph, checked, rings[-1])


def _lower(graph: Graph, bounds: Mapping[str, int], ring: Ring) -> Plan:
    emitter = emit_all(graph, bounds, ring)
    return Plan(
        ring=ring,
        steps=tuple(emitter.steps),
        values=tuple(emitter.values),
        parameters=tuple(emitter.parameters),
    )


def _check_bounds(graph: Graph, bounds: Mapping[str, int]) -> Mapping[str, int]:
    expected = set(graph.bound_names)
    missing, unknown = sorted(expected - set(bounds)), sorted(set(bounds) - expected)
    if missing or unknown:
        raise InvalidInput(
            f"The calibration is of another model: {len(missing)} bounds are missing "
            f"({', '.join(missing[:3])}), {len(unknown)} are unknown ({', '.join(unknown[:3])}). "
            "Calibrate this model again."
        )
    if any(type(bound) is not int or not MIN_BOUND <= bound <= MAX_BOUND for bound in bounds.values()):
        raise InvalidInput(
            f"A calibrated bound is not a whole number from {MIN_BOUND} to {MAX_BOUND}. "
            "Calibrate the model again."
        )
    return bounds
