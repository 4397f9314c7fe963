"""What verification says about an exported trail."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class Problem(enum.StrEnum):
    """What is wrong at the first place where something is."""

    ALTERED = "altered"
    MISSING = "missing"
    REORDERED = "reordered"
    DUPLICATED = "duplicated"
    INSERTED = "inserted"
    CUT_OFF = "cut_off"
    OTHER_TRAIL = "other_trail"
    BAD_SIGNATURE = "bad_signature"
    UNSIGNED = "unsigned"
    EMPTY = "empty"


@dataclass(frozen=True)
class Finding:
    """The first thing that is wrong.

    `sequence` is the entry it concerns: the altered, missing, inserted or doubled one, for reordered ones the
    one that should stand there. `line` is where it shows, 0 when that is the end of the file.
    """

    problem: Problem
    sequence: int
    line: int
    text: str


@dataclass(frozen=True)
class Report:
    """How far a trail is good. Without a finding, `entries` is all of it."""

    trail: str
    entries: int
    head_hash: str
    checkpoints: int
    signed_sequence: int
    finding: Finding | None

    @property
    def not_yet_signed(self) -> int:
        """Good entries after the last checkpoint: they could still be rewritten or cut off unnoticed."""
        return self.entries - self.signed_sequence
