"""Which scale each value gets: as fine as the ring and the sign window allow, equal where branches meet.

Exact rational arithmetic throughout: two hospitals and the coordinator must get the same plan.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from fractions import Fraction

from libs.mpc.ring import Ring
from libs.secure_nn.graph import Graph, Node, ScaleRule

WINDOW_BITS = 16
MIN_BOUND, MAX_BOUND = -20, 48
"""Limits of calibrated exponents; the lower one also stands for "always zero"."""
MAX_ACTIVATION_BITS = 20
MAX_WEIGHT_SCALE = 2**20
ACCUMULATOR_BITS = 44
"""Enough for any layer, and it keeps the shift back to an activation within 32 bits in Z_2^64."""
POOLED_BITS = WINDOW_BITS
"""What a sum pool may grow activations to before weights lose precision to them."""
POOL_ALLOWANCE_BITS = 2
"""How many bits an activation gives up for the pool behind it; averaging wins half of them back."""


def floor_log2(value: Fraction) -> int:
    """The largest e with 2^e <= value > 0."""
    exponent = value.numerator.bit_length() - value.denominator.bit_length()
    return exponent if Fraction(2) ** exponent <= value else exponent - 1


def ceil_log2(value: Fraction) -> int:
    """The smallest e with 2^e >= value > 0."""
    return -floor_log2(1 / value)


def power(exponent: int) -> Fraction:
    """2^exponent, exactly."""
    return Fraction(2) ** exponent


def value_bits(ring: Ring) -> int:
    """Rescaling and sign need |z| < 2^(k-2)."""
    return ring.bits - 2


def accumulator_bits(ring: Ring) -> int:
    """How large products may get."""
    return min(value_bits(ring), ACCUMULATOR_BITS)


@dataclass(frozen=True)
class _Member:
    """A value's group and its scale relative to the group's."""

    group: str
    factor: Fraction


def choose_scales(graph: Graph, bounds: Mapping[str, int], ring: Ring) -> dict[str, Fraction]:
    """The scale to aim at for every node's output.

    Values that share a scale for structural reasons (both sides of an addition, a pool and its
    input) form a group, whose scale is the largest that all members' bounds leave room for.
    Activations are not tied to the accumulators they are added to: they are lifted there.
    """
    wide = accumulating(graph)
    members = _groups(graph, wide)
    by_group: dict[str, list[Node]] = {}
    for node in graph.nodes:
        by_group.setdefault(members[node.name].group, []).append(node)
    scales: dict[str, Fraction] = {}
    for nodes in by_group.values():
        factors = {node.name: members[node.name].factor for node in nodes}
        if nodes[0].name in wide:
            # A power of two where branches meet, or at the end, where a ReLU shifts it down.
            joins = [node for node in nodes if len(node.inputs) > 1]
            end = factors[(joins or nodes)[-1].name]
            room = _room(graph, nodes, factors, bounds, accumulator_bits(ring), ring)
            base = power(floor_log2(room * end)) / end
        else:
            base = _activation_base(graph, nodes, factors, bounds, ring)
        scales.update({node.name: base * factors[node.name] for node in nodes})
    return scales


def accumulating(graph: Graph) -> set[str]:
    """Nodes whose value is, or contains, an accumulator: they have no activation's scale yet."""
    found: set[str] = set()
    for node in graph.nodes:
        rule = node.operation.scale_rule
        tied = rule is ScaleRule.TIED and any(name in found for name in node.inputs)
        if rule is ScaleRule.ACCUMULATOR or tied:
            found.add(node.name)
    return found


def _groups(graph: Graph, wide: set[str]) -> dict[str, _Member]:
    """Union of tied values. A tie that contradicts earlier ones is left to `Emitter.aligned`."""
    members = {node.name: _Member(node.name, Fraction(1)) for node in graph.nodes}
    for node in graph.nodes:
        if node.operation.scale_rule is not ScaleRule.TIED:
            continue
        for name in node.inputs:
            if (name in wide) != (node.name in wide):
                continue
            growth = node.operation.growth(graph.by_name[name].shape)
            mine, other = members[node.name], members[name]
            if mine.group == other.group:
                continue
            # scale(node) = growth * scale(input), so the two groups' bases relate by:
            relation = other.factor * growth / mine.factor
            for key, member in members.items():
                if member.group == mine.group:
                    members[key] = _Member(other.group, member.factor * relation)
    return members


def _room(
    graph: Graph,
    nodes: list[Node],
    factors: Mapping[str, Fraction],
    bounds: Mapping[str, int],
    bits: int,
    ring: Ring,
) -> Fraction:
    """The largest base for which no member, nor what is lifted to it or compared in it, overflows."""
    return min(
        min(power(bits - _peak(graph, node, bounds)), power(value_bits(ring) - 1)) / factors[node.name]
        for node in nodes
    )


def _peak(graph: Graph, node: Node, bounds: Mapping[str, int]) -> int:
    """The exponent that the ring must hold at this node's scale."""
    inside = max((user.operation.headroom for user in graph.consumers[node.name]), default=0)
    peak = bounds[node.name] + inside
    if node.operation.scale_rule is ScaleRule.TIED and len(node.inputs) > 1:
        peak = max(peak, *(bounds[name] for name in node.inputs))
    if "bias" in node.operation.tensors():
        peak = max(peak, bounds[node.parameter("bias")])
    return peak


def _activation_base(
    graph: Graph,
    nodes: list[Node],
    factors: Mapping[str, Fraction],
    bounds: Mapping[str, int],
    ring: Ring,
) -> Fraction:
    """2^(window - 1 - bound) for the tightest member, a little less in front of sum pools."""
    grown = _grown(graph, nodes)
    plain = [
        power(min(WINDOW_BITS - 1 - _window_bound(graph, node, bounds), MAX_ACTIVATION_BITS))
        / factors[node.name]
        for node in nodes
        if node.name not in grown
    ]
    pooled = [power(POOLED_BITS - bounds[name]) / factors[name] for name in grown]
    aim = min(plain)
    if pooled:
        aim = max(min(aim, *pooled), aim / 2**POOL_ALLOWANCE_BITS)
    room = _room(graph, nodes, factors, bounds, value_bits(ring), ring)
    first = factors[nodes[0].name]
    return power(floor_log2(min(aim, room) * first)) / first


def _window_bound(graph: Graph, node: Node, bounds: Mapping[str, int]) -> int:
    """The bound that a ReLU's sign window must cover is its input's."""
    if node.operation.scale_rule is ScaleRule.ACTIVATION and node.inputs:
        return max(bounds[node.name], bounds[node.inputs[0]])
    return bounds[node.name]


def _grown(graph: Graph, nodes: list[Node]) -> set[str]:
    """The members of a group (in graph order) with a sum pool between them and their ReLU or image."""
    found: set[str] = set()
    for node in nodes:
        if node.operation.scale_rule is not ScaleRule.TIED:
            continue
        pooled = any(node.operation.growth(graph.by_name[name].shape) > 1 for name in node.inputs)
        if pooled or any(name in found for name in node.inputs):
            found.add(node.name)
    return found
