"""How long a link takes: its delay and its bandwidth, from pings among the ordinary traffic."""

from __future__ import annotations

from collections import deque
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

PING_BYTES = 1 << 18
"""At 100 Mbit/s 20 ms: long against the clock's error, short against a layer's message."""

PINGS = 5
WINDOW = 8
"""Measurements of which the best counts: traffic and a busy machine only ever make one worse."""

MIN_SECONDS = 1e-5


@dataclass(frozen=True)
class LinkQuality:
    """There and back without content, and bytes a second in one direction."""

    rtt_s: float
    bytes_per_s: float


class LinkGauge:
    """Measures with `ping`, which gives the seconds until a frame of so many bytes was answered."""

    def __init__(self, ping: Callable[[int], Awaitable[float]]) -> None:
        self._ping = ping
        self._window: deque[LinkQuality] = deque(maxlen=WINDOW)

    async def measure(self) -> LinkQuality:
        """The link as its best recent measurements show it. Raises what `ping` raises."""
        rtt_s = min([await self._ping(0) for _ in range(PINGS)])
        long_s = min([await self._ping(PING_BYTES) for _ in range(PINGS)])
        self._window.append(LinkQuality(rtt_s, PING_BYTES / max(long_s - rtt_s, MIN_SECONDS)))
        return LinkQuality(
            rtt_s=min(quality.rtt_s for quality in self._window),
            bytes_per_s=max(quality.bytes_per_s for quality in self._window),
        )
