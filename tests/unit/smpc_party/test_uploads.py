"""Uploads that are cut off: what the index names is there, and what it does not name is not."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import numpy as np
import pytest

from libs.core.errors import DeadlineExceeded
from services.smpc_party.adapters.share_store import ShareWriter
from services.smpc_party.vectors import ModelVector
from tests.fakes.upload_desk import DEALER, Desk, rest, upload_of

VALUES = np.arange(1000, dtype=np.uint32)
DATA = VALUES.tobytes()
UPLOAD = upload_of(VALUES)


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    desk = Desk(tmp_path)
    yield desk
    desk.let_go.set()
    desk.index.close()


@pytest.mark.parametrize("step", ["begin", "write", "finish", "store"])
async def test_an_upload_cancelled_within_any_step_leaves_a_file_only_where_the_index_names_it(
    desk: Desk, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    if step == "store":
        monkeypatch.setattr(desk.index, "put_model_share", desk.hold(desk.index.put_model_share))
    elif step == "begin":
        monkeypatch.setattr(desk.store, "begin", desk.hold(desk.store.begin))
    else:
        monkeypatch.setattr(ShareWriter, step, desk.hold(getattr(ShareWriter, step)))
    task = asyncio.create_task(desk.put(UPLOAD, DATA))
    await asyncio.to_thread(desk.held.wait, 10)
    task.cancel()
    await asyncio.sleep(0.05)
    desk.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    await asyncio.sleep(0.05)
    # What was written before the line broke waits for its rest.
    assert len(desk.files() - desk.index.share_names()) == (step == "write")
    await desk.put(UPLOAD, DATA)
    _, values = await desk.desk.get(ModelVector("m"), DEALER)
    np.testing.assert_array_equal(values, VALUES)
    assert desk.files() == desk.index.share_names()
    for name in desk.index.share_names():
        assert desk.store._used_bytes == (desk.folder / "shares" / name).stat().st_size


async def trickle(pause_s: float, *chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(pause_s)
        yield chunk


BYTES = [DATA[i : i + 100] for i in range(0, len(DATA), 100)]


async def test_an_upload_that_stalls_ends_and_gives_its_room_back(desk: Desk) -> None:
    with pytest.raises(DeadlineExceeded, match="between chunks"):
        async with asyncio.timeout(30):
            await desk.desk.put(UPLOAD, DEALER, trickle(10, DATA))
    assert desk.files() == set()
    assert desk.store._used_bytes == 0
    assert await desk.put(UPLOAD, DATA) is False


async def test_an_upload_that_trickles_ends_and_goes_on_from_where_it_was(desk: Desk) -> None:
    with pytest.raises(DeadlineExceeded, match="send the rest"):
        async with asyncio.timeout(30):
            await desk.desk.put(UPLOAD, DEALER, trickle(0.05, *BYTES))
    came = await desk.received(UPLOAD)
    assert 0 < came < len(DATA)
    assert await desk.put(rest(UPLOAD, came), DATA[came:]) is False
    assert desk.files() == desk.index.share_names()


async def test_a_caller_sends_one_share_of_a_vector_at_a_time(desk: Desk) -> None:
    """The quota has room for two shares: ten at once must not use it up, and all learn that one is stored."""
    answers = await asyncio.gather(*(desk.put(UPLOAD, DATA) for _ in range(10)))
    assert sorted(answers) == [False] + [True] * 9
    assert len(desk.files()) == 1
    assert not desk.desk._turns
