"""Discrete Gaussian noise, a vector at a time: whole numbers k with probability ~ exp(-k^2 / (2 sigma^2)).

Canonne, Kamath and Steinke (2020), algorithm 3, on arrays. What is drawn are uniform 64-bit integers. Where
floating point cannot tell on which side of a probability one of them lies, once in 2^46 comparisons, exact
arithmetic does. Per value the result is within 2^-57 of the exact distribution (total variation).
"""

from __future__ import annotations

from collections.abc import Callable
from decimal import Decimal, localcontext
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput

MOST_STD = 1 << 30
_WHOLE = 1 << 64
_BAND = 1 << 17
"""Of 2^64: by how much a float's exp(-x), with x right to 2^-50, can be wrong, and more."""
_AT_ONCE = 1 << 16

Integers = npt.NDArray[np.int64]
Words = npt.NDArray[np.uint64]


class Stream(Protocol):
    """Uniform bits that nobody can predict, like `libs.mpc.prg.Prg` under a fresh key."""

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike, /) -> npt.NDArray[Any]:
        """The next ones."""
        ...


def discrete_gaussian(count: int, *, std: int, stream: Stream) -> Integers:
    """`count` independent values with parameter sigma = `std`, a whole number from 1 to 2^30. Shape (count,).

    The variance is at most sigma^2, and less by no more than one part in 10^6 (theorem 20 of the paper). How
    long it takes depends on the values drawn; not on anything they are added to.
    """
    if not 1 <= std <= MOST_STD:
        raise InvalidInput(f"The noise's standard deviation is a whole number from 1 to {MOST_STD}.")
    out = np.empty(count, np.int64)
    done = 0
    while done < count:
        found = _accepted(min(_AT_ONCE, 2 * (count - done) + 64), std, stream)[: count - done]
        out[done : done + len(found)] = found
        done += len(found)
    return out


def _accepted(tries: int, std: int, stream: Stream) -> Integers:
    """Those of so many discrete Laplace draws of scale t = std + 1 that come out Gaussian."""
    t = std + 1
    drawn = _laplace(tries, t, stream)
    exponents = (np.abs(drawn) - std * (std / t)) ** 2 / (2.0 * float(std) ** 2)

    def exact(i: int) -> Fraction:
        return (abs(int(drawn[i])) - Fraction(std * std, t)) ** 2 / (2 * std * std)

    accepted: Integers = drawn[_bernoulli_exp(exponents, exact, stream)]
    return accepted


def _laplace(tries: int, t: int, stream: Stream) -> Integers:
    """Some values of probability ~ exp(-|k| / t) (algorithm 2): magnitude rest + t * wholes, and a sign."""
    rest = _uniform(tries, t, stream)
    kept = rest[_bernoulli_exp(rest / t, lambda i: Fraction(int(rest[i]), t), stream)]
    wholes = len(_POWERS) - np.searchsorted(_POWERS, stream.array((len(kept),), np.uint64), side="right")
    magnitude = kept + t * wholes.astype(np.int64)
    negative = (stream.array((len(kept),), np.uint8) & 1).astype(bool)
    signed: Integers = np.where(negative, -magnitude, magnitude)
    single: Integers = signed[~(negative & (magnitude == 0))]  # else zero would come up twice as often
    return single


def _uniform(count: int, stop: int, stream: Stream) -> Integers:
    """Uniform in 0, ..., stop - 1, by leaving out what lies beyond a multiple of `stop`. At most `count`."""
    words: Words = stream.array((count,), np.uint64)
    even = words[words <= np.uint64(_WHOLE - 1 - _WHOLE % stop)]
    below: Integers = (even % np.uint64(stop)).astype(np.int64)
    return below


def _bernoulli_exp(
    exponents: npt.NDArray[np.float64], exact: Callable[[int], Fraction], stream: Stream
) -> npt.NDArray[np.bool_]:
    """True with probability exp(-x) for each. `exact(i)` gives the i-th x as a fraction, where needed."""
    words: Words = stream.array((len(exponents),), np.uint64)
    borders = np.exp(-exponents) * float(_WHOLE)
    distance = words.astype(np.float64) - borders
    below: npt.NDArray[np.bool_] = distance < 0
    for i in np.flatnonzero(np.abs(distance) < _BAND):
        below[i] = _is_below(int(words[i]), exact(int(i)), stream)
    return below


def _is_below(word: int, exponent: Fraction, stream: Stream) -> bool:
    """Whether the number whose first 64 binary digits are `word`, the next drawn now, is below exp(-x)."""
    more = int.from_bytes(stream.array((16,), np.uint8).tobytes(), "big")
    with localcontext() as context:
        context.prec = 80
        border = (-Decimal(exponent.numerator) / Decimal(exponent.denominator)).exp()
        return Decimal((word << 128) + more) < border * (1 << 192)


def _powers() -> Words:
    """exp(-44), ..., exp(-1), times 2^64 and rounded down: a uniform word lies below the last w of them with
    the probability that a geometric number is at least w."""
    with localcontext() as context:
        context.prec = 40
        return np.array([int(Decimal(-k).exp() * _WHOLE) for k in range(44, 0, -1)], np.uint64)


_POWERS = _powers()
