"""Rényi differential privacy of single events, at given orders. Floats, in log space.

Sources: Mironov (2017) for composition and pure differential privacy; Mironov, Talwar and Zhang (2019) for
the sampled Gaussian; Canonne, Kamath and Steinke (2020), proposition 12, for epsilon at a given delta.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from functools import lru_cache

ORDERS: tuple[float, ...] = (
    *(1 + step / 10 for step in range(1, 100)),
    *(float(order) for order in range(11, 64)),
    *(float(2**power) for power in range(7, 11)),
)
"""Any orders give a valid epsilon; these are dp_accounting's, which give nearly the smallest."""

_QUADRATURE_FROM = 0.1
"""Noise below which the grid would grow without end; nobody trains with so little."""

_REACH = 12.0
"""Standard deviations beyond which a Gaussian's mass (1e-32) is nothing to a float."""


@lru_cache(maxsize=256)
def sampled_gaussian(noise_multiplier: float, sample_rate: float) -> tuple[float, ...]:
    """Rényi divergence of one step at each of ORDERS. Steps add.

    It is log(A) / (order - 1), A the moment of the likelihood ratio 1 - q + q exp((2z - 1) / 2 sigma^2) under
    z ~ N(0, sigma^2), which is the larger of both directions (section 3.3 of the paper).
    """
    sigma, q = noise_multiplier, sample_rate
    everybody = tuple(order / (2 * sigma**2) for order in ORDERS)
    if q == 1 or sigma < _QUADRATURE_FROM:
        return everybody  # sampling never costs more
    whole = [order for order in ORDERS if order.is_integer()]
    other = [order for order in ORDERS if not order.is_integer()]
    moments = {order: _whole_moment(int(order), sigma, q) for order in whole}
    moments |= dict(zip(other, _moments_by_quadrature(other, sigma, q), strict=True))
    return tuple(max(moments[order], 0.0) / (order - 1) for order in ORDERS)


@lru_cache(maxsize=256)
def pure(epsilon: float) -> tuple[float, ...]:
    """Rényi divergence, at each of ORDERS, that `epsilon`-differential privacy allows.

    Randomised response and the discrete Laplace mechanism at sensitivity 1 reach it, so for them it is exact.
    """
    log_base = math.log1p(math.exp(-epsilon))
    return tuple(
        max(_log_sum((epsilon * (order - 1), -epsilon * order)) - log_base, 0.0) / (order - 1)
        for order in ORDERS
    )


def discrete_gaussian(noise_multiplier: float) -> tuple[float, ...]:
    """Rényi divergence of one release at each of ORDERS: at most the Gaussian's (Canonne et al., 2020)."""
    return tuple(order / (2 * noise_multiplier**2) for order in ORDERS)


def epsilon_at(divergences: Sequence[float], *, delta: float) -> float:
    """The smallest epsilon at `delta` that divergences at ORDERS prove."""
    return min(
        max(divergence + math.log1p(-1 / order) - math.log(delta * order) / (order - 1), 0.0)
        for order, divergence in zip(ORDERS, divergences, strict=True)
    )


def _whole_moment(order: int, sigma: float, q: float) -> float:
    """log A for a whole order: the binomial sum, all of whose terms are positive."""
    return _log_sum(
        [
            math.lgamma(order + 1)
            - math.lgamma(k + 1)
            - math.lgamma(order - k + 1)
            + k * math.log(q)
            + (order - k) * math.log1p(-q)
            + k * (k - 1) / (2 * sigma**2)
            for k in range(order + 1)
        ]
    )


def _moments_by_quadrature(orders: Sequence[float], sigma: float, q: float) -> list[float]:
    """log A for any orders, by the trapezoidal rule on one grid.

    For a function that is analytic within d of the real line the rule errs by exp(-2 pi d / step). Here
    d = pi sigma^2, where the ratio is zero, and the Gaussian allows steps of sigma / 3: the error is below
    1e-13.
    """
    step = min(sigma / 3, 0.6 * sigma**2)
    first = math.floor(-_REACH * sigma / step)
    last = math.ceil((max(orders) + _REACH * sigma) / step)
    points = [step * i for i in range(first, last + 1)]
    ratios = [_log_sum((math.log1p(-q), math.log(q) + (2 * z - 1) / (2 * sigma**2))) for z in points]
    base = math.log(step / (sigma * math.sqrt(2 * math.pi)))
    weights = [base - z * z / (2 * sigma**2) for z in points]
    return [
        _log_sum([weight + order * ratio for weight, ratio in zip(weights, ratios, strict=True)])
        for order in orders
    ]


def _log_sum(logs: Sequence[float]) -> float:
    """log of the sum of exp(each)."""
    top = max(logs)
    return top + math.log(math.fsum(math.exp(value - top) for value in logs))
