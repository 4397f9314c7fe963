"""Transactions of a node run one after the other, as whoever asked for them."""

from __future__ import annotations

import asyncio
import contextvars
import threading
import time

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from services.hospital_node.adapters.transactions import Transactions

_who: contextvars.ContextVar[str] = contextvars.ContextVar("who", default="nobody")


async def test_work_knows_who_asked_for_it(transactions: Transactions) -> None:
    async def asked(name: str) -> str:
        _who.set(name)
        return await transactions.run(lambda _session: _who.get())

    assert await asyncio.gather(asked("ada"), asked("eve")) == ["ada", "eve"]


async def test_transactions_run_in_the_order_in_which_they_came(transactions: Transactions) -> None:
    order: list[int] = []

    def work(number: int, session: Session) -> None:
        session.execute(text("SELECT 1"))
        time.sleep(0.01 if number == 0 else 0)
        order.append(number)

    await asyncio.gather(*(transactions.run(lambda s, n=n: work(n, s)) for n in range(20)))  # type: ignore[misc]
    assert order == list(range(20))


async def test_what_was_begun_is_finished_when_nobody_waits_for_it_any_more(
    transactions: Transactions,
) -> None:
    begun, go_on, done = threading.Event(), threading.Event(), threading.Event()

    def work(_session: Session) -> None:
        begun.set()
        go_on.wait(5)
        done.set()

    running = asyncio.ensure_future(transactions.run(work))
    await asyncio.to_thread(begun.wait, 5)
    running.cancel()
    with pytest.raises(asyncio.CancelledError):
        await running
    go_on.set()
    assert await asyncio.to_thread(done.wait, 5)
