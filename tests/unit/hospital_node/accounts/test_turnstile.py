"""A few at a time, a bounded number waiting, nobody in everybody's way."""

from __future__ import annotations

import asyncio

import pytest

from libs.core.errors import Unavailable
from services.hospital_node.accounts.turnstile import Turnstile


class Crowd:
    """Passes through a turnstile and waits inside until told to go on."""

    def __init__(self, **limits: int) -> None:
        self.turnstile = Turnstile(**limits)
        self.inside, self.order, self.most = 0, list[str](), 0
        self.open = asyncio.Event()

    async def come(self, name: str, client: str = "") -> None:
        async with self.turnstile.passed(client or name):
            self.inside += 1
            self.order.append(name)
            self.most = max(self.most, self.inside)
            await self.open.wait()
            self.inside -= 1

    async def settle(self) -> None:
        for _ in range(10):
            await asyncio.sleep(0)


async def test_a_few_are_inside_and_the_rest_wait_in_order() -> None:
    crowd = Crowd(at_once=2, waiting=3)
    coming = [asyncio.ensure_future(crowd.come(name)) for name in "abcde"]
    await crowd.settle()
    with pytest.raises(Unavailable, match="few seconds"):
        await asyncio.wait_for(crowd.come("f"), 30)
    crowd.open.set()
    await asyncio.gather(*coming)
    assert (crowd.most, "".join(crowd.order)) == (2, "abcde")
    await crowd.come("f")


async def test_one_client_does_not_take_every_place() -> None:
    crowd = Crowd(at_once=1, waiting=9, of_one_client=3)
    coming = [asyncio.ensure_future(crowd.come(f"e{n}", "eve")) for n in range(3)]
    await crowd.settle()
    with pytest.raises(Unavailable):
        await asyncio.wait_for(crowd.come("e4", "eve"), 30)
    coming.append(asyncio.ensure_future(crowd.come("ada")))
    crowd.open.set()
    await asyncio.gather(*coming)


async def test_who_gives_up_waiting_gives_the_place_back() -> None:
    crowd = Crowd(at_once=1, waiting=1)
    first = asyncio.ensure_future(crowd.come("a"))
    await crowd.settle()
    second = asyncio.ensure_future(crowd.come("b"))
    await crowd.settle()
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    third = asyncio.ensure_future(crowd.come("c"))
    crowd.open.set()
    await asyncio.gather(first, third)
    assert crowd.order == ["a", "c"]
