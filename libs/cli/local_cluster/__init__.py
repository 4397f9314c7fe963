"""A federation on one machine, for the demo, the benchmarks and the tests."""

from __future__ import annotations

from libs.cli.local_cluster.cluster import LocalCluster, ProcessDied
from libs.cli.local_cluster.layout import hospital_names
from libs.cli.local_cluster.link_emulation import LinkEmulation

__all__ = ["LinkEmulation", "LocalCluster", "ProcessDied", "hospital_names"]
