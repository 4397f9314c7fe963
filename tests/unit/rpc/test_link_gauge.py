"""What a link gauge makes of pings."""

from __future__ import annotations

import pytest

from libs.rpc.link_gauge import PING_BYTES, LinkGauge


async def test_delay_and_bandwidth_of_a_slow_link_are_found() -> None:
    async def ping(size_bytes: int) -> float:
        return 0.04 + size_bytes / 12.5e6

    quality = await LinkGauge(ping).measure()
    assert quality.rtt_s == pytest.approx(0.04)
    assert quality.bytes_per_s == pytest.approx(12.5e6)


async def test_a_busy_moment_does_not_spoil_what_was_measured_before() -> None:
    busy = 0.0

    async def ping(size_bytes: int) -> float:
        return 0.001 + busy + size_bytes / 1e9

    gauge = LinkGauge(ping)
    await gauge.measure()
    busy = 0.5
    quality = await gauge.measure()
    assert quality.rtt_s == pytest.approx(0.001)
    assert quality.bytes_per_s == pytest.approx(1e9, rel=0.01)


async def test_a_link_faster_than_the_clock_has_a_finite_bandwidth() -> None:
    async def ping(_size_bytes: int) -> float:
        return 1e-6

    assert 0 < (await LinkGauge(ping).measure()).bytes_per_s <= PING_BYTES * 1e5
