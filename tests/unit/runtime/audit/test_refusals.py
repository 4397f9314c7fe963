"""A flood of refused calls is recorded in a few entries."""

from __future__ import annotations

from libs.core.clock import SystemClock
from libs.runtime.audit.refusals import MAX_KINDS, WINDOW_S, Refusal, RefusalCounter


class Clock(SystemClock):
    time_s = 0.0

    def monotonic_s(self) -> float:
        return self.time_s


def test_the_first_is_written_and_the_rest_are_counted() -> None:
    clock = Clock()
    counter = RefusalCounter(clock)
    refusal = Refusal("spiffe://trefoil.local/client/eve", "/a.B/C", "permission_denied", "request-1")
    first = counter.note(refusal)
    assert first is not None
    assert (first.action, first.actor, first.object) == ("call.refused", refusal.actor, refusal.method)
    assert first.details == {"code": "permission_denied"}
    assert all(counter.note(refusal) is None for _ in range(1_000))
    assert counter.summaries() == []
    clock.time_s = WINDOW_S
    (summary,) = counter.summaries()
    assert summary.action == "calls.refused"
    assert summary.details == {"code": "permission_denied", "count": 1_000, "seconds": 60}
    assert counter.note(refusal) is not None  # a new window


def test_many_kinds_are_counted_together() -> None:
    counter = RefusalCounter(Clock())
    events = [counter.note(Refusal(f"client {n}", "/a.B/C", "unauthenticated")) for n in range(500)]
    written = [event for event in events if event is not None]
    (summary,) = counter.summaries(even_if_early=True)
    assert len(written) == MAX_KINDS
    assert (summary.actor, summary.details["count"]) == ("several", 500 - MAX_KINDS)
