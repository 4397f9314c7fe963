"""Which refused statements enter the audit trail: enough to be noticed, never enough to drown the rest."""

from __future__ import annotations

from collections import OrderedDict
from datetime import UTC, datetime, timedelta

MOST_AT_ONCE = 60
ONE_MORE_AFTER = timedelta(minutes=1)
REMEMBERED = 1000


class Refusals:
    """Lets the first refusal of each thing through, up to `MOST_AT_ONCE` and then one a minute.

    A coordinator that loops or lies can send statements without end, and a trail never shrinks. What is left
    out is counted, and the next entry says how many that were. The log has all of them.
    """

    def __init__(self) -> None:
        self._seen: OrderedDict[tuple[str, str], None] = OrderedDict()
        self._room, self._counted_to = MOST_AT_ONCE, datetime.min.replace(tzinfo=UTC)
        self._left_out = 0

    def enter(self, what: str, why: str, *, now: datetime) -> int | None:
        """How many were left out since the last entry, when this one is to be entered; else None."""
        self._make_room(now)
        repeated = (what, why) in self._seen
        self._seen[what, why] = None
        self._seen.move_to_end((what, why))
        if len(self._seen) > REMEMBERED:
            self._seen.popitem(last=False)
        if repeated or self._room == 0:
            self._left_out += 1
            return None
        self._room -= 1
        left_out, self._left_out = self._left_out, 0
        return left_out

    def _make_room(self, now: datetime) -> None:
        minutes = (now - self._counted_to) // ONE_MORE_AFTER
        if minutes > 0:
            self._room = min(MOST_AT_ONCE, self._room + minutes)
            self._counted_to = now
