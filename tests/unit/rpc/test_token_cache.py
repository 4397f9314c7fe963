"""What is remembered of remote services: their verdicts, and that they fail."""

from __future__ import annotations

import asyncio

import pytest

from libs.core.errors import Unavailable
from libs.rpc.token_checks.breaker import CircuitBreaker
from libs.rpc.token_checks.cache import VerdictCache
from tests.fakes.token_services import TurnedClock

OPAQUE = "0paque-t0ken"


def test_the_cache_is_bounded_holds_no_token_and_a_flood_of_refusals_forgets_no_acceptance() -> None:
    clock = TurnedClock()
    cache: VerdictCache[str] = VerdictCache(entries=3, accepted_s=60, refused_s=60, clock=clock)
    cache.accept(OPAQUE, "dana", expires_at=clock.now().replace(hour=13))
    for number in range(100):
        cache.refuse(f"made-up-{number}", "no")
    assert cache.get(OPAQUE) == "dana"
    assert len(cache) == 4
    assert OPAQUE not in repr(vars(cache))
    for number in range(3):
        cache.accept(f"good-{number}", "erin", expires_at=clock.now().replace(hour=13))
    assert cache.get(OPAQUE) is None


async def test_the_open_circuit_lets_one_probe_through_and_a_cancelled_one_decides_nothing() -> None:
    clock = TurnedClock()
    breaker = CircuitBreaker(failures=1, open_s=10, clock=clock)
    attempts = 0

    async def failing() -> None:
        raise Unavailable("down")

    async def hanging() -> None:
        nonlocal attempts
        attempts += 1
        await asyncio.Event().wait()

    async def working() -> str:
        return "up"

    with pytest.raises(Unavailable, match="down"):
        await breaker.call(failing)
    with pytest.raises(Unavailable, match="asked again"):
        await breaker.call(working)
    clock.seconds = 10
    probe = asyncio.create_task(breaker.call(hanging))
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="asked again"):
        await breaker.call(working)
    probe.cancel()
    with pytest.raises(asyncio.CancelledError):
        await probe
    assert (attempts, await breaker.call(working), await breaker.call(working)) == (1, "up", "up")
