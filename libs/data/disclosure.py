"""What an owner lets others know of the numbers of a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from enum import StrEnum

from libs.core.errors import InvalidInput

BUCKET = 10
"""Width of the ranges in which rounded counts are given."""


class CountDisclosure(StrEnum):
    """How much is said: the numbers, the tens they lie in, or nothing."""

    EXACT = "exact"
    ROUNDED = "rounded"
    WITHHELD = "withheld"


@dataclass(frozen=True)
class DisclosedCount:
    """A number that lies between `low` and `high`, both included. Raises InvalidInput for an empty range."""

    low: int
    high: int

    def __post_init__(self) -> None:
        if not 0 <= self.low <= self.high:
            raise InvalidInput("A count lies between two numbers from 0, the smaller one first.")

    def __str__(self) -> str:
        if self.low == self.high:
            return str(self.low)
        return f"<{self.high + 1}" if self.low == 0 else f"{self.low} to {self.high}"

    @property
    def nominal(self) -> int:
        """One number in its place: the middle of the range, rounded down."""
        return (self.low + self.high) // 2


@dataclass(frozen=True)
class DisclosedCounts:
    """All that may be said of a data set's numbers; None and no classes where nothing may be."""

    policy: CountDisclosure
    images: DisclosedCount | None
    patients: DisclosedCount | None
    images_per_class: Mapping[str, DisclosedCount]

    @property
    def about_images(self) -> int:
        """One number for all images, exact or to the nearest ten and then at least ten; 0: withheld.

        What a catalogue sorts by, and what a hospital's weight in training follows from.
        """
        if self.images is None or self.policy is CountDisclosure.EXACT:
            return 0 if self.images is None else self.images.low
        return max(BUCKET, (self.images.nominal + BUCKET // 2) // BUCKET * BUCKET)


def disclose(
    images_per_class: Mapping[str, int], *, patients: int, policy: CountDisclosure
) -> DisclosedCounts:
    """What `policy` lets out of exact counts.

    Rounded counts are tens: 0 to 9 ("<10"), 10 to 19, and so on. The total is the sum of the classes' ranges
    and never comes from the exact counts, so that it tells nothing which the classes do not. Raises
    InvalidInput for a negative count.
    """
    if policy is CountDisclosure.WITHHELD:
        return DisclosedCounts(policy, images=None, patients=None, images_per_class={})
    width = 1 if policy is CountDisclosure.EXACT else BUCKET
    classes = {name: _bucket(count, width) for name, count in images_per_class.items()}
    return DisclosedCounts(
        policy,
        images=DisclosedCount(
            sum(count.low for count in classes.values()), sum(count.high for count in classes.values())
        ),
        patients=_bucket(patients, width),
        images_per_class=classes,
    )


def disclosed_again(policy: CountDisclosure, lows: Mapping[str, int]) -> dict[str, DisclosedCount]:
    """Images per class from the smallest that each may be, which is all that travels through a catalogue."""
    width = 1 if policy is CountDisclosure.EXACT else BUCKET
    return {name: DisclosedCount(low, low + width - 1) for name, low in lows.items()}


def _bucket(count: int, width: int) -> DisclosedCount:
    low = count - count % width
    return DisclosedCount(low, low + width - 1)
