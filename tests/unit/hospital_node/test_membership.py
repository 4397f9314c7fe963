"""Joining and leaving: the hospital's own decision, kept over restarts, told until it is heard."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field

import pytest

from libs.core.errors import FailedPrecondition, InvalidInput, TrefoilError, Unavailable
from services.hospital_node.adapters.membership import SqlMembership
from services.hospital_node.adapters.tables import AUDIT
from services.hospital_node.adapters.transactions import Transactions
from services.hospital_node.link import Backoff
from services.hospital_node.membership import Membership, MembershipState
from tests.fakes.access import OWNER
from tests.fakes.audit import unsigned_trail


@dataclass
class Outside:
    """A link that is up while it runs, and a coordinator that hears or does not."""

    up: bool = False
    goodbyes: int = 0
    stopped: int = 0
    deaf: list[TrefoilError] = field(default_factory=list)

    async def keep_attached(self) -> None:
        self.up = True
        try:
            await asyncio.Event().wait()
        finally:
            self.up = False

    async def say_goodbye(self) -> None:
        assert not self.up
        self.goodbyes += 1
        if self.deaf:
            raise self.deaf.pop()

    async def stop_work(self) -> None:
        self.stopped += 1


def membership_store(transactions: Transactions) -> SqlMembership:
    return SqlMembership(transactions, unsigned_trail(AUDIT))


@pytest.fixture
def outside() -> Outside:
    return Outside()


@asynccontextmanager
async def running(transactions: Transactions, outside: Outside) -> AsyncIterator[Membership]:
    membership = Membership(
        store=membership_store(transactions),
        keep_attached=outside.keep_attached,
        say_goodbye=outside.say_goodbye,
        stop_work=outside.stop_work,
        backoff=Backoff(first_s=0.01, most_s=0.02),
    )
    task = asyncio.create_task(membership.run())
    try:
        yield membership
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - no events are set here
            await asyncio.sleep(0.005)


async def state_is(transactions: Transactions, state: MembershipState) -> None:
    async with asyncio.timeout(10):
        while await membership_store(transactions).state() is not state:  # noqa: ASYNC110 - as above
            await asyncio.sleep(0.005)


async def test_a_new_node_takes_part(transactions: Transactions, outside: Outside) -> None:
    async with running(transactions, outside) as membership:
        await until(lambda: outside.up)
        assert await membership.takes_part()


async def test_leaving_stops_work_and_link_and_lasts_over_a_restart(
    transactions: Transactions, outside: Outside
) -> None:
    async with running(transactions, outside) as membership:
        await until(lambda: outside.up)
        await membership.leave(request_id="one", actor=OWNER)
        assert outside.stopped == 1
        assert not await membership.takes_part()
        await state_is(transactions, MembershipState.LEFT)
        assert (outside.up, outside.goodbyes) == (False, 1)
    again = Outside()
    async with running(transactions, again) as membership:
        await asyncio.sleep(0.05)
        assert (again.up, again.goodbyes) == (False, 0)
        await membership.join(request_id="two", actor=OWNER)
        await until(lambda: again.up)


async def test_a_goodbye_is_said_until_it_is_heard_even_after_a_restart(
    transactions: Transactions, outside: Outside
) -> None:
    outside.deaf = [Unavailable("down")] * 1000
    async with running(transactions, outside) as membership:
        await membership.leave(request_id="one", actor=OWNER)
        await until(lambda: outside.goodbyes >= 3)
    assert await membership_store(transactions).state() is MembershipState.LEAVING
    again = Outside(deaf=[Unavailable("down")])
    async with running(transactions, again):
        await state_is(transactions, MembershipState.LEFT)
    assert again.goodbyes == 2


async def test_a_coordinator_that_refuses_to_listen_has_nothing_to_forget(
    transactions: Transactions, outside: Outside
) -> None:
    outside.deaf = [FailedPrecondition("not approved")]
    async with running(transactions, outside) as membership:
        await until(lambda: outside.up)
        await membership.leave(request_id="one", actor=OWNER)
        await state_is(transactions, MembershipState.LEFT)
    assert outside.goodbyes == 1


async def test_the_same_request_again_changes_nothing(transactions: Transactions, outside: Outside) -> None:
    async with running(transactions, outside) as membership:
        await membership.leave(request_id="one", actor=OWNER)
        await membership.join(request_id="two", actor=OWNER)
        await membership.leave(request_id="one", actor=OWNER)
        assert await membership.takes_part()
        assert outside.stopped == 1
        for wrong in ("", "x" * 101):
            with pytest.raises(InvalidInput):
                await membership.leave(request_id=wrong, actor=OWNER)


async def test_an_id_that_joined_leaves_as_well(transactions: Transactions, outside: Outside) -> None:
    """A hospital that wants to leave is never told that it did while it stays."""
    async with running(transactions, outside) as membership:
        await membership.join(request_id="one", actor=OWNER)
        await membership.leave(request_id="one", actor=OWNER)
        assert not await membership.takes_part()


async def test_who_joined_and_left_stands_in_the_trail_once(
    transactions: Transactions, outside: Outside
) -> None:
    async with running(transactions, outside) as membership:
        await membership.leave(request_id="one", actor=OWNER)
        await membership.leave(request_id="one", actor=OWNER)
        await membership.join(request_id="two", actor=OWNER)
    with transactions.engine.begin() as connection:
        trail = unsigned_trail(AUDIT).export(connection, after=0, limit=100)
    told = [(line["action"], line["actor"], line["request_id"]) for line in trail]
    assert told == [("federation.left", OWNER, "one"), ("federation.joined", OWNER, "two")]


async def test_leaving_again_stops_what_the_first_call_could_not(
    transactions: Transactions, outside: Outside
) -> None:
    store = membership_store(transactions)
    await store.change(MembershipState.LEAVING, request_id="one", actor=OWNER)  # and its caller hung up
    async with running(transactions, outside) as membership:
        await membership.leave(request_id="one", actor=OWNER)
        assert outside.stopped == 1
