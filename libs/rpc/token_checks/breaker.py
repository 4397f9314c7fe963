"""A remote service that keeps failing is left alone for a while, so that its callers fail fast."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import TypeVar

from libs.core.clock import Clock
from libs.core.errors import Unavailable

T = TypeVar("T")


class CircuitBreaker:
    """After `failures` Unavailable in a row: Unavailable at once for `open_s` seconds, then one probe.

    The probe's success closes the circuit; its failure opens it again. A probe that is cancelled decides
    nothing, and the next call is the probe.
    """

    def __init__(self, *, failures: int, open_s: float, clock: Clock) -> None:
        self._limit, self._open_s, self._clock = failures, open_s, clock
        self._failed = 0
        self._opened_at: float | None = None
        self._probing = False

    async def call(self, attempt: Callable[[], Awaitable[T]]) -> T:
        """What `attempt` gives back, unless the circuit is open."""
        probe = self._admit()
        try:
            result = await attempt()
        except Unavailable:
            self._failed += 1
            if probe or self._failed >= self._limit:
                self._opened_at = self._clock.monotonic_s()
            raise
        else:
            self._failed, self._opened_at = 0, None
            return result
        finally:
            if probe:
                self._probing = False

    def _admit(self) -> bool:
        """Whether this call is the probe; Unavailable while the circuit is open."""
        if self._opened_at is None:
            return False
        if self._probing or self._clock.monotonic_s() - self._opened_at < self._open_s:
            raise Unavailable(
                f"The service that checks tokens failed several times and is asked again in up to "
                f"{self._open_s:g} s. Try again then."
            )
        self._probing = True
        return True
