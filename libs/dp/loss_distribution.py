"""Epsilon from the distribution of the privacy loss itself: tighter than Rényi divergences, and as safe.

One release's loss is put on a grid so that every hockey-stick divergence stays or grows ("connect the dots",
Doroshenko et al., 2022), which composition keeps (Zhu, Dong and Wang, 2022: dominating pairs). Releases
are composed by a Fourier transform (Koskela, Jälkö and Honkela, 2020); what wraps around or is rounded is
bounded and counted in delta. Both directions, a record added and one removed, are counted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache

import numpy as np
import numpy.typing as npt

from libs.dp.events import DiscreteLaplace, SampledGaussian

Reals = npt.NDArray[np.float64]
LossEvent = SampledGaussian | DiscreteLaplace

_REACH = 12.0
"""Standard deviations beyond which a Gaussian's mass (1e-32) is nothing to a float."""
_POINTS_PER_DEVIATION = 32
"""Grid points per standard deviation of one release's loss: epsilon is then right to a part in a thousand."""
_MOST_POINTS = 1 << 19
_MOST_CELLS = 1 << 17
"""Of one release: a coarser grid is safe too, only less tight, where hardly anybody takes part in a step."""
_NODES, _WEIGHTS = np.polynomial.legendre.leggauss(6)
_TAIL = 1e-4
"""Of delta, spent on what lies beyond the window."""
_ROUNDING = 2.0**-47
"""Of a mass of one, for each release: the transform errs by less."""
_LARGEST_LOSS = 600.0
_TILTS: Reals = 2.0 ** np.arange(-6, 9, 0.5)
"""Exponents for Chernoff's bound; any give a valid one."""


@dataclass(frozen=True)
class _OnGrid:
    """Masses of losses `step * (first + i)`. They add up to one but for what rounding takes."""

    first: int
    masses: Reals
    step: float

    @property
    def losses(self) -> Reals:
        return self.step * (self.first + np.arange(len(self.masses), dtype=np.float64))


def epsilon_at(events: Sequence[tuple[LossEvent, int]], *, delta: float) -> float:
    """An upper bound of the epsilon at `delta` of each event, so many times; infinity where this cannot tell.

    It cannot for losses beyond 600, for a delta near the rounding of floats, and for too many steps at too
    little noise; Rényi divergences can. Exact within about one part in a thousand.
    """
    if not events:
        return 0.0
    return max(_one_way(events, delta=delta, added=added) for added in (False, True))


def _one_way(events: Sequence[tuple[LossEvent, int]], *, delta: float, added: bool) -> float:
    releases = sum(count for _, count in events)
    step = _step(events)
    parts = [(_discretised(event, step, added=added), count) for event, count in events]
    if any(part is None for part, _ in parts):
        return math.inf
    known = [(part, count) for part, count in parts if part is not None]
    low, high = _window(known, tail=delta * _TAIL)
    points = 1 << max(4, math.ceil(math.log2((high - low) / step + 2)))
    left = delta * (1 - _TAIL) - releases * _ROUNDING
    if points > _MOST_POINTS or max(-low, high) > _LARGEST_LOSS or left <= 0:
        return math.inf
    first = math.floor(low / step)
    spectrum = np.ones(points // 2 + 1, np.complex128)
    for part, count in known:
        circle = np.zeros(points)
        np.add.at(circle, (part.first + np.arange(len(part.masses))) % points, part.masses)
        spectrum *= np.fft.rfft(circle) ** count
    # What lies below the window comes out near its top, which only adds to epsilon.
    masses = np.maximum(np.roll(np.fft.irfft(spectrum, points), -(first % points)), 0)
    return _epsilon(_OnGrid(first, masses, step), delta=left)


def _epsilon(loss: _OnGrid, *, delta: float) -> float:
    """The smallest epsilon >= 0 with sum over larger losses of mass * (1 - exp(epsilon - loss)) <= delta."""
    masses = np.cumsum(loss.masses[::-1])[::-1]
    others = np.cumsum((loss.masses * np.exp(-loss.losses))[::-1])[::-1]
    divergences = masses - np.exp(loss.losses) * others  # at each grid point
    above = np.flatnonzero(divergences > delta)
    if not len(above):
        return max(float(loss.losses[0]), 0.0)
    after = int(above[-1]) + 1
    if after == len(masses):
        return math.inf
    # Between grid points the divergence is linear in exp(epsilon).
    return max(math.log((masses[after] - delta) / others[after]) if masses[after] > delta else 0.0, 0.0)


def _window(parts: Sequence[tuple[_OnGrid, int]], *, tail: float) -> tuple[float, float]:
    """Between which losses all but `tail` of the composed mass lies, on either side (Chernoff's bound)."""

    def reach(sign: int) -> float:
        bounds = np.full(len(_TILTS), -math.log(tail))
        for part, count in parts:
            exponents = np.log(np.maximum(part.masses, 1e-300)) + sign * _TILTS[:, None] * part.losses
            top = exponents.max(axis=1)
            bounds += count * (top + np.log(np.exp(exponents - top[:, None]).sum(axis=1)))
        return float((bounds / _TILTS).min())

    return -reach(-1), reach(1)


def _step(events: Sequence[tuple[LossEvent, int]]) -> float:
    """The distance of grid points: a fraction of the typical standard deviation of one release's loss."""
    variance = sum(count * _variance(event) for event, count in events)
    fine = math.sqrt(variance / sum(count for _, count in events)) / _POINTS_PER_DEVIATION
    return max(fine, max(_span(event) for event, _ in events) / _MOST_CELLS)


def _span(event: LossEvent) -> float:
    """From the smallest to the largest loss of one release."""
    if isinstance(event, DiscreteLaplace):
        return 2 * float(event.epsilon)
    reach = _REACH * event.noise_multiplier
    low, high = _loss(np.array([-reach, 1 + reach]), event.noise_multiplier, event.sample_rate).tolist()
    return float(high - low)


def _variance(event: LossEvent) -> float:
    match event:
        case DiscreteLaplace():
            return float(event.epsilon) ** 2
        case SampledGaussian(sigma, q, _):
            # Of the loss near its centre: q^2 (exp(1/sigma^2) - 1) when that is small, 1/sigma^2 at most.
            return min(q * q * math.expm1(min(1 / sigma**2, 50.0)), 1 / sigma**2)


def _discretised(event: LossEvent, step: float, *, added: bool) -> _OnGrid | None:
    match event:
        case DiscreteLaplace():
            epsilon = float(event.epsilon) * (1 + 2**-52)
            # Randomised response: the pair that any pure mechanism is dominated by, the same both ways.
            masses = np.array([1, math.exp(-epsilon)]) / (1 + math.exp(-epsilon))
            return _spread(np.array([epsilon, -epsilon]), masses, step)
        case SampledGaussian(sigma, q, _):
            return _sampled(sigma, q, step, added=added)


@lru_cache(maxsize=32)
def _sampled(sigma: float, q: float, step: float, *, added: bool) -> _OnGrid | None:
    """Of one sampled Gaussian. P is the data's own distribution, Q the neighbour's; the loss is log P/Q.

    A record removed: P = (1 - q) N(0) + q N(1), Q = N(0); a record added: the other way round.
    """
    reach = _REACH * sigma
    ends = _loss(np.array([-reach, 1 + reach]), sigma, q)
    if np.abs(ends).max() > _LARGEST_LOSS:
        return None
    borders = _borders(sigma, q, step, ends)
    middle, half = (borders[1:] + borders[:-1]) / 2, (borders[1:] - borders[:-1]) / 2
    x = (middle[:, None] + half[:, None] * _NODES).ravel()
    weights = (half[:, None] * _WEIGHTS).ravel() / (sigma * math.sqrt(2 * math.pi))
    near = np.exp(-(x**2) / (2 * sigma**2))
    density = near if added else (1 - q) * near + q * np.exp(-((x - 1) ** 2) / (2 * sigma**2))
    losses = _loss(x, sigma, q)
    return _spread(-losses if added else losses, weights * density, step)


def _borders(sigma: float, q: float, step: float, ends: Reals) -> Reals:
    """Where to integrate piece by piece: at every grid point's place, and never further than sigma / 8."""
    first, last = math.ceil(ends[0] / step), math.floor(ends[1] / step)
    grid = step * np.arange(first, last + 1, dtype=np.float64)
    inside = np.exp(grid) - (1 - q)
    places = sigma**2 * np.log(np.maximum(inside, 1e-300) / q) + 0.5
    reach = _REACH * sigma
    even = np.linspace(-reach, 1 + reach, math.ceil((2 * reach + 1) / (sigma / 8)))
    borders: Reals = np.unique(np.concatenate([even, places[(places > -reach) & (places < 1 + reach)]]))
    return borders


def _loss(x: Reals, sigma: float, q: float) -> Reals:
    """log(1 - q + q exp((2x - 1) / (2 sigma^2))): increasing in x."""
    ratio = (2 * x - 1) / (2 * sigma**2)
    if q == 1:
        return ratio
    loss: Reals = np.logaddexp(math.log1p(-q), math.log(q) + ratio)
    return loss


def _spread(losses: Reals, masses: Reals, step: float) -> _OnGrid:
    """Each mass on the two grid points around its loss, so that P's and Q's masses both stay what they are.

    With P's mass m at loss l between a and a + step, m (1 - exp(a - l)) / (1 - exp(-step)) goes to the upper.
    Hockey-stick divergences are convex in exp(epsilon), and become their chords: never less.
    """
    cells = np.floor(losses / step).astype(np.int64)
    first = int(cells.min())
    upper = masses * -np.expm1(cells * step - losses) / -math.expm1(-step)
    out = np.zeros(int(cells.max()) - first + 2)
    np.add.at(out, cells - first, masses - upper)
    np.add.at(out, cells - first + 1, upper)
    return _OnGrid(first, np.maximum(out, 0), step)
