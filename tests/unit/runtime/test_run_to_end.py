"""Work in a thread ends before whoever was cancelled goes on."""

from __future__ import annotations

import asyncio
import threading

import pytest

from libs.runtime.run_to_end import run_to_end


async def test_the_result_and_the_error_come_back() -> None:
    assert await run_to_end(divmod, 7, 2) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        await run_to_end(divmod, 7, 0)


async def test_a_caller_cancelled_twice_is_told_only_when_the_thread_has_ended() -> None:
    begun, go_on, ended = threading.Event(), threading.Event(), threading.Event()

    def work() -> None:
        begun.set()
        go_on.wait(10)
        ended.set()

    task = asyncio.create_task(run_to_end(work))
    await asyncio.to_thread(begun.wait, 10)
    for _ in range(2):
        task.cancel()
        await asyncio.sleep(0.01)
        assert not task.done()
    go_on.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ended.is_set()
