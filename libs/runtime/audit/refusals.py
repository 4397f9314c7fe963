"""Refused calls on their way into the trail: the first of a kind at once, the rest counted.

Somebody who hammers on a door must not fill the disk with entries, and must not go unrecorded either.
"""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

from libs.core.clock import Clock
from libs.runtime.audit.entry import Event, Outcome

WINDOW_S = 60.0
MAX_KINDS = 20
"""So many different refusals a window are written out; more are counted together."""


@dataclass(frozen=True)
class Refusal:
    """A call that was not let in: who asked, for which method, and the code of the reason."""

    actor: str
    method: str
    code: str
    request_id: str = ""


_Kind = tuple[str, str, str]
_OTHERS: _Kind = ("several", "", "")


class RefusalCounter:
    """Turns refusals into at most `2 * MAX_KINDS + 1` events a window. Not for several threads at once."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self._repeated: Counter[_Kind] = Counter()
        self._kinds: set[_Kind] = set()
        self._since_s = clock.monotonic_s()

    def note(self, refusal: Refusal) -> Event | None:
        """The event to write now; None when the refusal is only counted."""
        kind = (refusal.actor, refusal.method, refusal.code)
        if kind in self._kinds or len(self._kinds) >= MAX_KINDS:
            self._repeated[kind if kind in self._kinds else _OTHERS] += 1
            return None
        self._kinds.add(kind)
        return Event(
            action="call.refused",
            actor=refusal.actor,
            object=refusal.method,
            outcome=Outcome.REFUSED,
            request_id=refusal.request_id,
            details={"code": refusal.code},
        )

    def summaries(self, *, even_if_early: bool = False) -> list[Event]:
        """Once the window is over: how often each refusal was repeated in it. A new window begins."""
        now_s = self._clock.monotonic_s()
        if now_s - self._since_s < WINDOW_S and not even_if_early:
            return []
        repeated, self._repeated, self._kinds = self._repeated, Counter(), set()
        seconds, self._since_s = int(now_s - self._since_s), now_s
        return [
            Event(
                action="calls.refused",
                actor=actor,
                object=method,
                outcome=Outcome.REFUSED,
                details={"code": code or "several", "count": count, "seconds": seconds},
            )
            for (actor, method, code), count in repeated.items()
        ]
