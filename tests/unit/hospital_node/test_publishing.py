from __future__ import annotations

from pathlib import Path

import pytest

from libs.core.errors import AlreadyExists, InvalidInput, NotFound
from services.hospital_node.adapters.database import Database
from services.hospital_node.datasets import Publisher
from tests.fakes.hospital_ports import FixedClock, RememberingAnnouncer, ScriptedWorker

REQUEST = {"name": "chest", "description": "", "tags": ("a", "b", "a"), "path": "/data/chest"}


@pytest.fixture
def worker() -> ScriptedWorker:
    return ScriptedWorker()


@pytest.fixture
def announcer() -> RememberingAnnouncer:
    return RememberingAnnouncer()


@pytest.fixture
def publisher(store: Database, announcer: RememberingAnnouncer, worker: ScriptedWorker) -> Publisher:
    return Publisher(
        store=store, announcer=announcer, worker=worker, data_roots=[Path("/data")], clock=FixedClock()
    )


async def test_publishing_stores_announces_and_lets_the_inspecting_process_go(
    publisher: Publisher, store: Database, announcer: RememberingAnnouncer, worker: ScriptedWorker
) -> None:
    published = await publisher.publish(**REQUEST)  # type: ignore[arg-type]
    assert await store.dataset("chest") == published
    assert published.tags == ("a", "b")
    assert announcer.said == [("published", "chest")]
    assert worker.jobs == ["inspect", "stop"]


async def test_the_same_again_is_the_same_dataset_and_other_files_under_the_name_are_refused(
    publisher: Publisher, worker: ScriptedWorker
) -> None:
    first = await publisher.publish(**REQUEST)  # type: ignore[arg-type]
    assert await publisher.publish(**REQUEST) == first  # type: ignore[arg-type]
    with pytest.raises(AlreadyExists, match="Withdraw"):
        await publisher.publish(**REQUEST | {"path": "/data/other"})  # type: ignore[arg-type]


async def test_files_that_cannot_be_read_leave_nothing_behind(
    publisher: Publisher, store: Database, announcer: RememberingAnnouncer, worker: ScriptedWorker
) -> None:
    worker.error = InvalidInput("no")
    with pytest.raises(InvalidInput):
        await publisher.publish(**REQUEST)  # type: ignore[arg-type]
    assert await store.datasets() == []
    assert announcer.said == []
    assert worker.jobs[-1] == "stop"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "../etc"},
        {"name": "Chest X"},
        {"tags": ("",)},
        {"tags": ("a" * 65,)},
        {"tags": tuple(map(str, range(33)))},
        {"description": "x" * 2001},
    ],
)
async def test_words_that_the_catalogue_cannot_take_are_refused_before_anything_is_read(
    publisher: Publisher, worker: ScriptedWorker, wrong: dict[str, object]
) -> None:
    with pytest.raises(InvalidInput):
        await publisher.publish(**REQUEST | wrong)  # type: ignore[arg-type]
    assert worker.jobs == []


async def test_a_withdrawal_is_announced_and_an_unknown_name_is_an_error(
    publisher: Publisher, announcer: RememberingAnnouncer
) -> None:
    await publisher.publish(**REQUEST)  # type: ignore[arg-type]
    await publisher.withdraw("chest")
    assert announcer.said[-1] == ("withdrawn", "chest")
    with pytest.raises(NotFound):
        await publisher.withdraw("chest")
