"""Which comparison suits a link: a model of a prediction's time, and the cheaper of the two."""

from __future__ import annotations

from dataclasses import dataclass

from libs.core.errors import InvalidInput
from libs.mpc.schemes.masked.comparison import Comparison
from libs.secure_nn.plan import Plan
from libs.secure_nn.steps import Relu

OFFLINE_WEIGHT = 0.02
"""A second of dealing ahead, while nobody waits, counts as a fiftieth of a second that a client waits."""


@dataclass(frozen=True)
class _Compute:
    """Seconds for each compared value, measured on one core (libs/mpc/README.md)."""

    online_s: float
    offline_s: float


_COMPUTE = {
    Comparison.NARROW: _Compute(online_s=10e-9, offline_s=25e-9),
    Comparison.WIDE: _Compute(online_s=16e-9, offline_s=95e-9),
}


def estimated_time_s(
    plan: Plan,
    batch: int,
    comparison: Comparison,
    *,
    rtt_s: float,
    bytes_per_s: float,
    offline_weight: float = OFFLINE_WEIGHT,
) -> float:
    """What depends on the comparison in the time of one prediction; products are the same in both.

    Both evaluators send at once, so a round lasts one way, rtt_s / 2, and the bytes each way travel side by
    side. `bytes_per_s` is of one direction of one link, evaluators' and dealer's alike.
    """
    if not (rtt_s >= 0 and bytes_per_s > 0 and offline_weight >= 0):
        raise InvalidInput("A link needs a delay of zero or more and a bandwidth above zero.")
    cost = plan.cost(batch, comparison=comparison)
    compared = batch * sum(plan.values[s.output].elements for s in plan.steps if isinstance(s, Relu))
    compute = _COMPUTE[comparison]
    online_s = cost.rounds * rtt_s / 2 + cost.online_bytes_each_way / bytes_per_s
    offline_s = cost.dealt_bytes / bytes_per_s
    return (
        online_s + compared * compute.online_s + offline_weight * (offline_s + compared * compute.offline_s)
    )


def choose_comparison(
    plan: Plan,
    batch: int,
    *,
    rtt_s: float,
    bytes_per_s: float,
    offline_weight: float = OFFLINE_WEIGHT,
) -> Comparison:
    """The comparison with the smaller `estimated_time_s`; NARROW when they are equal.

    `offline_weight` is 0 where dealing is free, for example overnight, and 1 where the client waits for it.
    """
    return min(
        Comparison,
        key=lambda comparison: estimated_time_s(
            plan, batch, comparison, rtt_s=rtt_s, bytes_per_s=bytes_per_s, offline_weight=offline_weight
        ),
    )
