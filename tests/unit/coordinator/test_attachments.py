"""Presence, the grace time, and waiting for changes without missing one."""

from __future__ import annotations

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from libs.core.errors import PermissionDenied, Unavailable
from libs.rpc._generated.trefoil.coordinator.v1.coordinator_pb2 import CoordinatorOrder
from services.coordinator.attachments import Attachments
from services.coordinator.changes import ChangeFeed
from services.coordinator.orders import Order, OrderKey
from tests.fakes.studies import A, B, created


class HandClock:
    """A clock that a test moves."""

    def __init__(self) -> None:
        self.passed_s = 0.0

    def now(self) -> datetime:
        return datetime(2026, 11, 23, tzinfo=UTC) + timedelta(seconds=self.passed_s)

    def monotonic_s(self) -> float:
        return self.passed_s


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def attachments(clock: HandClock) -> Attachments:
    return Attachments(clock=clock, reattach_grace_s=10)


def test_a_hospital_is_gone_only_after_the_grace_time(attachments: Attachments, clock: HandClock) -> None:
    attachment = attachments.attach(A)
    clock.passed_s = 100
    assert not attachments.gone([A])
    attachments.detach(attachment)
    assert attachments.present == frozenset()
    clock.passed_s = 109
    assert not attachments.gone([A])
    clock.passed_s = 110
    assert attachments.gone([A]) == {A}


def test_after_a_restart_hospitals_have_the_grace_time_to_come_back(
    attachments: Attachments, clock: HandClock
) -> None:
    assert not attachments.gone([A, B])
    attachments.attach(A)
    clock.passed_s = 10
    assert attachments.gone([A, B]) == {B}


def test_the_end_of_a_replaced_stream_does_not_detach_its_successor(attachments: Attachments) -> None:
    first = attachments.attach(A)
    attachments.attach(A)
    attachments.detach(first)
    assert attachments.present == {A}


async def test_an_order_is_queued_once_per_stream_and_again_on_the_next(attachments: Attachments) -> None:
    for _ in range(2):
        attachment = attachments.attach(A)
        attachments.deliver(created())
        attachments.deliver(created())
        attachment.close()
        assert [order.key.kind async for order in attachment.orders()] == ["proposal"]


async def test_a_change_between_looking_and_waiting_is_not_missed() -> None:
    feed = ChangeFeed()
    seen = feed.version("study-1")
    feed.publish("study-1")
    async with asyncio.timeout(30):
        await feed.wait("study-1", seen=seen)


async def test_waiting_ends_by_the_timer() -> None:
    feed = ChangeFeed()
    async with asyncio.timeout(30):
        await feed.wait("study-1", seen=0, timeout_s=0.01)
        await feed.wait("study-1", seen=0, timeout_s=-1)


async def test_a_stopping_coordinator_says_so_to_all_that_wait(attachments: Attachments) -> None:
    feed = ChangeFeed()
    waiting = asyncio.create_task(feed.wait("study-1", seen=0))
    await asyncio.sleep(0)
    feed.close()
    attachments.close()
    with pytest.raises(Unavailable):
        await waiting
    with pytest.raises(Unavailable):
        attachments.attach(A)


async def test_a_stream_that_is_cut_sends_nothing_that_was_queued(attachments: Attachments) -> None:
    attachment = attachments.attach(A, key_sha256="a" * 64)
    attachments.deliver(created())
    attachments.expel(A, PermissionDenied("revoked"), key_sha256="b" * 64)
    assert attachments.present == {A}  # another key's stream is not meant
    attachments.expel(A, PermissionDenied("revoked"), key_sha256="a" * 64)
    assert attachments.present == frozenset()
    assert attachments.gone([A]) == {A}
    attachments.deliver(created())
    attachment.close()
    with pytest.raises(PermissionDenied):
        await anext(attachment.orders())


async def test_an_order_under_way_when_the_stream_is_cut_is_not_sent(
    attachments: Attachments,
) -> None:
    attachment = attachments.attach(A)
    attachments.deliver(created())
    orders = attachment.orders()
    waiting = asyncio.ensure_future(anext(orders))
    await waiting
    next_one = asyncio.ensure_future(anext(orders))
    await asyncio.sleep(0)
    attachment.push(Order(OrderKey("study-2", "proposal"), CoordinatorOrder()))
    attachment.cut(PermissionDenied("revoked"))
    with pytest.raises(PermissionDenied):
        await next_one
