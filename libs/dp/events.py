"""What was done with data, as frozen values. What that costs is the accountant's question.

An event describes the release that took place, never a figure of epsilon, so that a better accountant can
count an old ledger again. Neighbouring data sets differ by one record, added or removed; for a
`DiscreteGaussian` by all that one contributor, such as a hospital, put into a sum.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from fractions import Fraction
from types import MappingProxyType
from typing import Any

from libs.core.errors import InvalidInput
from libs.dp.exact import exact, text_of

MAX_JSON_BYTES = 64 * 1024
MAX_STEPS = 10**9
LEAST_NOISE, MOST_NOISE = 0.01, 1e6
_MAX_DEPTH = 16


@dataclass(frozen=True)
class SampledGaussian:
    """`steps` sums over records that are chosen independently with probability `sample_rate` (Poisson), with
    Gaussian noise whose standard deviation is `noise_multiplier` times the largest norm of a record's part.

    DP-SGD is this event (Abadi et al., 2016).
    """

    noise_multiplier: float
    sample_rate: float
    steps: int

    def __post_init__(self) -> None:
        if not LEAST_NOISE <= self.noise_multiplier <= MOST_NOISE:
            raise InvalidInput(
                f"noise_multiplier lies between {LEAST_NOISE:g} and {MOST_NOISE:g}. A release with less "
                "noise is NoPrivacy."
            )
        if not 0 < self.sample_rate <= 1:
            raise InvalidInput("sample_rate is a probability above 0 and at most 1.")
        if not 1 <= self.steps <= MAX_STEPS:
            raise InvalidInput(f"steps lie between 1 and {MAX_STEPS}.")


@dataclass(frozen=True)
class DiscreteLaplace:
    """Whole numbers with two-sided geometric noise: P(noise = k) ~ exp(-epsilon |k| / sensitivity).

    `epsilon` is the privacy of the whole release, for whichever sensitivity it was made.
    """

    epsilon: Fraction

    def __post_init__(self) -> None:
        if not 0 < self.epsilon <= 10**6:
            raise InvalidInput(
                "epsilon lies above 0 and up to a million. A release without noise is NoPrivacy."
            )


@dataclass(frozen=True)
class DiscreteGaussian:
    """`releases` sums of vectors of whole numbers, each with discrete Gaussian noise whose standard deviation
    is `noise_multiplier` times the largest norm of one contributor's part.

    The noise may come in parts from several sources whose variances add up, if each is much wider than 1
    (libs/dp/DECISIONS.md).
    """

    noise_multiplier: float
    releases: int

    def __post_init__(self) -> None:
        if not LEAST_NOISE <= self.noise_multiplier <= MOST_NOISE:
            raise InvalidInput(f"noise_multiplier lies between {LEAST_NOISE:g} and {MOST_NOISE:g}.")
        if not 1 <= self.releases <= MAX_STEPS:
            raise InvalidInput(f"releases lie between 1 and {MAX_STEPS}.")


@dataclass(frozen=True)
class NoPrivacy:
    """Something about the data was told without noise. No finite epsilon describes it."""


@dataclass(frozen=True)
class PostProcessing:
    """Something was computed from earlier releases alone. It costs nothing."""


@dataclass(frozen=True)
class Composed:
    """Several events on the same data, each of which may have depended on the results of those before."""

    events: tuple[Event, ...]

    def __post_init__(self) -> None:
        if depth(self) > _MAX_DEPTH:
            raise InvalidInput(f"Events lie at most {_MAX_DEPTH} deep within each other.")


Event = SampledGaussian | DiscreteLaplace | DiscreteGaussian | NoPrivacy | PostProcessing | Composed


def depth(event: Event) -> int:
    """1 for a single event, one more for each level of composition around it."""
    if not isinstance(event, Composed):
        return 1
    return 1 + max((depth(part) for part in event.events), default=0)


def canonical_json(event: Event) -> bytes:
    """The one JSON form of an event: keys sorted, no spaces, ASCII. `from_json` reads it."""
    return json.dumps(_as_json(event), sort_keys=True, separators=(",", ":"), allow_nan=False).encode()


def from_json(text: bytes) -> Event:
    """The event. Raises InvalidInput for unknown kinds and fields, wrong types and values out of range."""
    if len(text) > MAX_JSON_BYTES:
        raise InvalidInput(f"An event has at most {MAX_JSON_BYTES} bytes.")
    try:
        value = json.loads(text, object_pairs_hook=_without_doubles, parse_constant=_refuse_constant)
    except (ValueError, RecursionError):
        raise InvalidInput("This is not the JSON of an event.") from None
    return _from_value(value, level=1)


def _as_json(event: Event) -> dict[str, Any]:
    match event:
        case SampledGaussian():
            return {
                "kind": "sampled_gaussian",
                "noise_multiplier": float(event.noise_multiplier),
                "sample_rate": float(event.sample_rate),
                "steps": event.steps,
            }
        case DiscreteLaplace():
            return {"kind": "discrete_laplace", "epsilon": text_of(event.epsilon)}
        case DiscreteGaussian():
            return {
                "kind": "discrete_gaussian",
                "noise_multiplier": float(event.noise_multiplier),
                "releases": event.releases,
            }
        case NoPrivacy():
            return {"kind": "no_privacy"}
        case PostProcessing():
            return {"kind": "post_processing"}
        case Composed():
            return {"kind": "composed", "events": [_as_json(part) for part in event.events]}


# Each kind: the types of its fields, and how they become the event. `level` counts from 1.
_FIELDS: Mapping[str, Mapping[str, type]] = MappingProxyType(
    {
        "sampled_gaussian": {"noise_multiplier": float, "sample_rate": float, "steps": int},
        "discrete_laplace": {"epsilon": str},
        "discrete_gaussian": {"noise_multiplier": float, "releases": int},
        "no_privacy": {},
        "post_processing": {},
        "composed": {"events": list},
    }
)
_MAKE: Mapping[str, Callable[[dict[str, Any], int], Event]] = MappingProxyType(
    {
        "sampled_gaussian": lambda fields, _: SampledGaussian(**fields),
        "discrete_laplace": lambda fields, _: DiscreteLaplace(exact(fields["epsilon"])),
        "discrete_gaussian": lambda fields, _: DiscreteGaussian(**fields),
        "no_privacy": lambda _fields, _: NoPrivacy(),
        "post_processing": lambda _fields, _: PostProcessing(),
        "composed": lambda fields, level: Composed(
            tuple(_from_value(part, level=level + 1) for part in fields["events"])
        ),
    }
)


def _from_value(value: object, *, level: int) -> Event:
    if not isinstance(value, dict) or level > _MAX_DEPTH:
        raise InvalidInput("An event is a JSON object with a kind, and not too deep within others.")
    fields = dict(value)
    kind = fields.pop("kind", None)
    expected = _FIELDS.get(kind) if isinstance(kind, str) else None
    if expected is None:
        raise InvalidInput(f"Unknown kind of event. Known are: {', '.join(_FIELDS)}.")
    if set(fields) != set(expected):
        raise InvalidInput(f"An event {kind!r} has exactly these fields: {', '.join(expected) or 'none'}.")
    for name, type_ in expected.items():
        if type(fields[name]) is not type_:  # also keeps True from being the number 1
            raise InvalidInput(f"The field {name!r} of an event {kind!r} is of the wrong type.")
    return _MAKE[str(kind)](fields, level)


def _without_doubles(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise ValueError("a name twice")
    return fields


def _refuse_constant(name: str) -> object:
    raise ValueError(name)
