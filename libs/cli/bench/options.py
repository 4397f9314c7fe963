"""Options that the sub-commands share."""

from __future__ import annotations

import enum
from typing import Annotated

import typer


class RingBits(enum.StrEnum):
    """The ring to compute in."""

    BITS_32 = "32"
    BITS_64 = "64"


class ComparisonChoice(enum.StrEnum):
    """The parties' setting."""

    AUTO = "auto"
    NARROW = "narrow"
    WIDE = "wide"


RepeatOption = Annotated[int, typer.Option(min=1, max=10_000, help="How often it is timed.")]
WarmUpOption = Annotated[
    int,
    typer.Option(
        min=0,
        help="How often it runs before that; after 3 every party has played every role.",
    ),
]
ThreadsOption = Annotated[int, typer.Option(min=1, max=256, help="Compute threads of each party.")]
LatencyOption = Annotated[
    float, typer.Option(min=0, max=10_000, help="Emulated round-trip time of every link, in milliseconds.")
]
BandwidthOption = Annotated[
    float | None,
    typer.Option(
        min=0.01, max=1e6, help="Emulated limit per direction of every link, in Mbit/s.", show_default="none"
    ),
]
AtOnceOption = Annotated[
    int, typer.Option(min=1, max=64, help="Questions asked at the same time; throughput is what counts then.")
]
CellsOption = Annotated[
    int, typer.Option(min=1, max=8, help="Groups of three parties that the questions are spread over.")
]
PoolOption = Annotated[
    int,
    typer.Option(
        min=0,
        max=192,
        help="Pieces of material ready before each timed question; 0: it is dealt while the client waits.",
    ),
]
ComparisonOption = Annotated[
    ComparisonChoice, typer.Option(help="How signs are found: in two rounds, in one, or as the links suit.")
]
BitsOption = Annotated[RingBits, typer.Option("--bits", help="Bits of a ring element.")]
