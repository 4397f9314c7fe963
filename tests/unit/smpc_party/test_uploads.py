"""Uploads that are cut off: what the index names is there, and what it does not name is not."""

from __future__ import annotations

import asyncio
import hashlib
import secrets
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.core.errors import DeadlineExceeded
from libs.core.secret import Secret
from libs.mpc.ring import Ring
from libs.rpc.identity import Identity, Kind
from services.smpc_party.adapters.index import AUDIT, Index
from services.smpc_party.adapters.share_store import ShareStore, ShareWriter
from services.smpc_party.domain import ModelSpec
from services.smpc_party.uploads import ModelVector, ShareDesk, Upload
from tests.fakes.audit import unsigned_trail

DEALER = Identity(Kind.CLIENT, "dana")
VALUES = np.arange(1000, dtype=np.uint32)
DATA = VALUES.tobytes()
UPLOAD = Upload("upload-1", ModelVector("m"), Ring.RING_32, 1000, None, hashlib.sha256(DATA).digest())


class Desk:
    """A desk on a real disk, and a switch that holds one of its steps until it is let go."""

    def __init__(self, folder: Path) -> None:
        self.store = ShareStore(folder, Secret(secrets.token_bytes(32)), quota_bytes=10_000)
        self.index = Index(folder / "index.db", unsigned_trail(AUDIT))
        self.desk = ShareDesk(rounds=self.index, shares=self.store, idle_s=0.2, shortest_s=0.4)
        self.folder, self.held, self.let_go = folder, threading.Event(), threading.Event()
        self.index.add_model(ModelSpec("m", Ring.RING_32, 1000, DEALER, frozenset({DEALER}), b""))

    def hold(self, function: Callable[..., Any]) -> Callable[..., Any]:
        def held(*args: Any, **kwargs: Any) -> Any:
            self.held.set()
            self.let_go.wait(10)
            return function(*args, **kwargs)

        return held

    async def put(self, *chunks: bytes) -> bool:
        async def stream() -> AsyncIterator[bytes]:
            for chunk in chunks:
                yield chunk

        return await self.desk.put(UPLOAD, DEALER, stream())

    def files(self) -> set[str]:
        return {path.name for name in ("shares", "incoming") for path in (self.folder / name).iterdir()}


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
    task = asyncio.create_task(desk.put(DATA))
    await asyncio.to_thread(desk.held.wait, 10)
    task.cancel()
    await asyncio.sleep(0.05)
    desk.let_go.set()
    with pytest.raises(asyncio.CancelledError):
        await task
    monkeypatch.undo()
    await asyncio.sleep(0.05)
    assert desk.files() == desk.index.share_names()
    await desk.put(DATA)
    _, values = await desk.desk.get(ModelVector("m"), DEALER)
    np.testing.assert_array_equal(values, VALUES)
    for name in desk.index.share_names():
        assert desk.store._used_bytes == (desk.folder / "shares" / name).stat().st_size


async def trickle(pause_s: float, *chunks: bytes) -> AsyncIterator[bytes]:
    for chunk in chunks:
        await asyncio.sleep(pause_s)
        yield chunk


BYTES = [DATA[i : i + 100] for i in range(0, len(DATA), 100)]


@pytest.mark.parametrize(("pause_s", "chunks"), [(10, [DATA]), (0.05, BYTES)], ids=["stalls", "trickles"])
async def test_an_upload_that_stalls_or_trickles_ends_and_gives_its_room_back(
    desk: Desk, pause_s: float, chunks: list[bytes]
) -> None:
    with pytest.raises(DeadlineExceeded, match="Nothing was kept"):
        async with asyncio.timeout(30):
            await desk.desk.put(UPLOAD, DEALER, trickle(pause_s, *chunks))
    assert desk.files() == set()
    assert desk.store._used_bytes == 0
    assert await desk.put(DATA) is False


async def test_a_caller_sends_one_share_of_a_vector_at_a_time(desk: Desk) -> None:
    """The quota has room for two shares: ten at once must not use it up, and all learn that one is stored."""
    answers = await asyncio.gather(*(desk.put(DATA) for _ in range(10)))
    assert sorted(answers) == [False] + [True] * 9
    assert len(desk.files()) == 1
    assert not desk.desk._turns
