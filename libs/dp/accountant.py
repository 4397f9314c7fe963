"""What events cost together: epsilon at a given delta, and how much noise a target needs."""

from __future__ import annotations

import enum
import math
from collections.abc import Callable, Iterable, Iterator
from fractions import Fraction
from functools import lru_cache

from libs.core.errors import InvalidInput
from libs.dp import renyi
from libs.dp.events import (
    LEAST_NOISE,
    MOST_NOISE,
    Composed,
    DiscreteGaussian,
    DiscreteLaplace,
    Event,
    NoPrivacy,
    PostProcessing,
    SampledGaussian,
)

_RELATIVE_STEP = 1e-4
_SAVED = 0.7
"""Of the noise that divergences ask for, at least what is planned by the loss, though less might do."""


class Accountant(enum.StrEnum):
    """By which proof epsilon is counted. Both are upper bounds; a plan names one, and its ledger follows."""

    RDP = "rdp"
    """Rényi divergences added up."""
    PRV = "prv"
    """The distribution of the privacy loss itself (privacy random variables), and never more than by RDP."""


def epsilon_of(event: Event, *, delta: float, accountant: Accountant = Accountant.RDP) -> float:
    """The event's epsilon at `delta`: an upper bound, infinity where nothing is promised.

    The smaller of two proofs: all Rényi divergences added; or those of the Gaussian events alone, and to
    their epsilon the sum of the pure ones. With PRV a third one may be smaller still. Raises InvalidInput
    unless 0 <= delta < 1.
    """
    if not 0 <= delta < 1:
        raise InvalidInput("delta is a probability from 0 up and below 1.")
    parts = list(_single(event))
    if any(isinstance(part, NoPrivacy) for part in parts):
        return math.inf
    pure = [part.epsilon for part in parts if isinstance(part, DiscreteLaplace)]
    gaussian = [part for part in parts if isinstance(part, SampledGaussian | DiscreteGaussian)]
    if delta == 0:
        return math.inf if gaussian else _above(sum(pure, Fraction(0)))
    by_divergence = _by_divergence(pure, gaussian, delta=delta)
    if accountant is Accountant.RDP or not parts:
        return by_divergence
    return min(by_divergence, _by_distribution(parts, delta=delta))


def _by_divergence(
    pure: list[Fraction], gaussian: list[SampledGaussian | DiscreteGaussian], *, delta: float
) -> float:
    noisy = _divergences_of(gaussian)
    separately = (renyi.epsilon_at(noisy, delta=delta) if gaussian else 0.0) + _above(sum(pure, Fraction(0)))
    if not pure:
        return separately
    curves = [noisy, *(renyi.pure(_above(epsilon)) for epsilon in pure)]
    together = [math.fsum(column) for column in zip(*curves, strict=True)]
    return min(separately, renyi.epsilon_at(together, delta=delta))


def _by_distribution(parts: list[Event], *, delta: float) -> float:
    # numpy takes a moment to import, and who only reads plans needs nothing of it.
    from libs.dp.loss_distribution import epsilon_at  # noqa: PLC0415

    counted: list[tuple[SampledGaussian | DiscreteLaplace, int]] = []
    for part in parts:
        if isinstance(part, SampledGaussian):
            counted.append((part, part.steps))
        elif isinstance(part, DiscreteLaplace):
            counted.append((part, 1))
        else:  # whole numbers are lumpier than a Gaussian; divergences cover that
            return math.inf
    return epsilon_at(counted, delta=delta)


@lru_cache(maxsize=256)
def noise_multiplier_for(
    *,
    target_epsilon: float,
    delta: float,
    sample_rate: float,
    steps: int,
    accountant: Accountant = Accountant.RDP,
) -> float:
    """The least noise, to one part in ten thousand, with which so many steps cost at most `target_epsilon`.

    By bisection between LEAST_NOISE and MOST_NOISE, and the upper end of it: the target is never exceeded.
    Raises InvalidInput for a target that is not positive and finite, and for one that no such noise reaches.
    """
    _check_target(target_epsilon, delta)

    def cost(noise: float) -> float:
        event = SampledGaussian(noise_multiplier=noise, sample_rate=sample_rate, steps=steps)
        return epsilon_of(event, delta=delta, accountant=accountant)

    low = high = LEAST_NOISE
    if accountant is not Accountant.RDP:  # which costs more to ask: begin where divergences say
        high = noise_multiplier_for(
            target_epsilon=target_epsilon, delta=delta, sample_rate=sample_rate, steps=steps
        )
        low = max(LEAST_NOISE, high * _SAVED)
        if cost(low) <= target_epsilon:
            high = low
    return _least_noise(cost, target_epsilon, low=low, high=high)


def sum_noise_multiplier_for(*, target_epsilon: float, delta: float, releases: int) -> float:
    """The same for discrete Gaussian noise on so many sums. Errors as `noise_multiplier_for`."""
    _check_target(target_epsilon, delta)

    def cost(noise: float) -> float:
        return epsilon_of(DiscreteGaussian(noise_multiplier=noise, releases=releases), delta=delta)

    return _least_noise(cost, target_epsilon, low=LEAST_NOISE, high=LEAST_NOISE)


def _check_target(target_epsilon: float, delta: float) -> None:
    if not (math.isfinite(target_epsilon) and target_epsilon > 0):
        raise InvalidInput("target_epsilon is a finite number above 0.")
    if not 0 < delta < 1:
        raise InvalidInput("delta lies between 0 and 1; choose it far below one in the number of records.")


def _least_noise(cost: Callable[[float], float], target_epsilon: float, *, low: float, high: float) -> float:
    while cost(high) > target_epsilon:
        if high == MOST_NOISE:
            raise InvalidInput(
                "No reasonable noise keeps so many steps within this epsilon. Train for fewer rounds, with "
                "smaller batches, or ask for a larger epsilon."
            )
        low, high = high, min(high * 2, MOST_NOISE)
    while high - low > _RELATIVE_STEP * high:
        middle = (low + high) / 2
        low, high = (low, middle) if cost(middle) <= target_epsilon else (middle, high)
    return high


def _single(event: Event) -> Iterator[Event]:
    """The events that are not compositions, in order."""
    if isinstance(event, Composed):
        for part in event.events:
            yield from _single(part)
    elif not isinstance(event, PostProcessing):
        yield event


def _divergences_of(events: Iterable[SampledGaussian | DiscreteGaussian]) -> list[float]:
    total = [0.0] * len(renyi.ORDERS)
    for event in events:
        if isinstance(event, DiscreteGaussian):
            curve, times = renyi.discrete_gaussian(event.noise_multiplier), event.releases
        else:
            curve, times = renyi.sampled_gaussian(event.noise_multiplier, event.sample_rate), event.steps
        total = [sum_ + times * single for sum_, single in zip(total, curve, strict=True)]
    return total


def _above(value: Fraction) -> float:
    """The float nearest to `value` that is not below it."""
    nearest = float(value)
    return nearest if Fraction(nearest) >= value else math.nextafter(nearest, math.inf)
