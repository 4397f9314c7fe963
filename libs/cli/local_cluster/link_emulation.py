"""What kind of network a cluster is to have between its processes."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from libs.cli.settings_files import Settings


@dataclass(frozen=True)
class LinkEmulation:
    """Of every TCP connection by itself. `latency_ms`: round-trip time. `bandwidth_mbps`: Mbit/s in each
    direction; None for no limit.
    """

    latency_ms: float
    bandwidth_mbps: float | None = None

    @classmethod
    def wanted(cls, *, latency_ms: float, bandwidth_mbps: float | None) -> LinkEmulation | None:
        """None when neither is asked for: then nothing stands between the processes."""
        return cls(latency_ms, bandwidth_mbps) if latency_ms or bandwidth_mbps else None

    def to_json(self) -> dict[str, Any]:
        """For reports."""
        return {"latency_ms": self.latency_ms, "bandwidth_mbps": self.bandwidth_mbps}

    def settings(self, routes: Mapping[str, str]) -> Settings:
        """The settings file of the emulator's process. `routes`: where it listens -> where that leads."""
        limit = {} if self.bandwidth_mbps is None else {"bandwidth_mbps": self.bandwidth_mbps}
        listed = [{"listen": listen, "target": target} for listen, target in routes.items()]
        return {"latency_ms": self.latency_ms, **limit, "routes": listed}
