"""Publishing and withdrawing as staff asks for it, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from dataclasses import replace
from itertools import count
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from libs.core.errors import FailedPrecondition, InvalidInput, NotFound
from libs.data.mock import MockRecipe, make_mock
from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2 as pb
from libs.rpc.caller import Caller, calling_as
from libs.rpc.identity import Identity, Kind
from services.hospital_node.adapters.dataset_store import DatasetStore
from services.hospital_node.adapters.tables import AUDIT
from services.hospital_node.adapters.transactions import Transactions
from services.hospital_node.dataset_rpc import DatasetCalls
from services.hospital_node.datasets import Publisher
from services.hospital_node.dicomweb.archives import Archives
from tests.fakes.audit import unsigned_trail
from tests.fakes.hospital_ports import (
    FixedClock,
    RememberingAnnouncer,
    ScriptedWorker,
    dataset,
    shelve,
)

ROUNDED, WITHHELD = pb.COUNT_DISCLOSURE_ROUNDED, pb.COUNT_DISCLOSURE_WITHHELD
OWNER = Caller(Identity(Kind.CLIENT, "owner"), token=None, request_id="")


class Desk:
    """The calls, with everything around them in memory but the database."""

    def __init__(self, datasets: DatasetStore) -> None:
        self.datasets, self.worker, self.announcer = datasets, ScriptedWorker(), RememberingAnnouncer()
        self.consent_changes = 0
        seeds = count(7)
        publisher = Publisher(
            datasets=datasets,
            worker=self.worker,
            data_roots=[Path("/data")],
            clock=FixedClock(),
            draw_seed=lambda: next(seeds),
            archives=Archives({}, cache=Path("nowhere")),
        )
        self.calls = DatasetCalls(
            datasets=datasets,
            publisher=publisher,
            announcer=self.announcer,
            consent_changed=self._consent_changed,
            clock=FixedClock(),
        )

    async def _consent_changed(self) -> None:
        self.consent_changes += 1

    async def publish(self, **fields: object) -> pb.Dataset:
        request: dict[str, object] = {"name": "chest", "tags": ["a", "b", "a"], "path": "/data/chest"}
        answer = await self.calls.publish(pb.PublishDatasetRequest(**(request | fields)))  # type: ignore[arg-type]
        return answer.dataset

    async def withdraw(self, name: str = "chest", request_id: str = "") -> None:
        await self.calls.withdraw(pb.WithdrawDatasetRequest(name=name, request_id=request_id))

    async def versions(self) -> list[pb.Dataset]:
        answer = await self.calls.versions(pb.ListDatasetVersionsRequest(name="chest"))
        return list(answer.versions)

    def other_files(self, letter: str = "d") -> None:
        self.worker.inspection = replace(self.worker.inspection, content_hash=letter * 64)


@pytest.fixture
def desk(datasets: DatasetStore) -> Iterator[Desk]:
    with calling_as(OWNER):
        yield Desk(datasets)


async def test_publishing_stores_announces_and_lets_the_inspecting_process_go(desk: Desk) -> None:
    published = await desk.publish(description="Ours", licence="CC-BY-4.0")
    stored = await desk.datasets.dataset("chest")
    assert (stored.tags, stored.licence, stored.version) == (("a", "b"), "CC-BY-4.0", 1)
    assert (published.images, published.patients) == (10, 7)
    assert desk.announcer.said == [("published", "chest")]
    assert desk.worker.jobs == ["inspect", "stop"]


async def test_unless_the_owner_says_otherwise_counts_are_rounded(desk: Desk) -> None:
    published = await desk.publish()
    assert published.disclosure == ROUNDED
    assert (published.disclosed_images, dict(published.disclosed_counts)) == (
        10,
        {"NORMAL": 0, "PNEUMONIA": 0},
    )


async def test_the_owner_chooses_how_much_is_told_of_the_counts(desk: Desk) -> None:
    exact = await desk.publish(disclosure=pb.COUNT_DISCLOSURE_EXACT)
    assert (exact.disclosed_images, dict(exact.disclosed_counts)) == (10, {"NORMAL": 4, "PNEUMONIA": 6})
    withheld = await desk.publish(disclosure=WITHHELD)
    assert (withheld.disclosed_images, dict(withheld.disclosed_counts)) == (0, {})
    with pytest.raises(InvalidInput, match="exact, rounded or withheld"):
        await desk.publish(disclosure=9)


async def test_a_published_mock_is_what_its_recipe_makes(desk: Desk) -> None:
    published = await desk.publish(mock_images=40)
    recipe = MockRecipe.from_json(published.mock_recipe)
    assert (sum(recipe.images_per_class), recipe.seed) == (40, 7)
    assert len(make_mock(recipe, expected_hash=published.mock_hash)) == 40


async def test_the_same_again_is_the_same_version(desk: Desk) -> None:
    first = await desk.publish()
    assert await desk.publish() == first
    assert await desk.versions() == [first]


@pytest.mark.parametrize(
    "change",
    [
        {"description": "In other words"},
        {"tags": ["a"]},
        {"licence": "Ask us"},
        {"path": "/data/moved"},
        {"disclosure": WITHHELD},
        {"mock_images": 50},
        {},
    ],
    ids=lambda change: next(iter(change), "files"),
)
async def test_whatever_differs_is_a_new_version_and_the_old_one_is_history(
    desk: Desk, change: dict[str, object]
) -> None:
    first = await desk.publish()
    if not change:
        desk.other_files()
    second = await desk.publish(**change)
    assert (second.version, second.HasField("withdrawn_at")) == (2, False)
    newest, oldest = await desk.versions()
    assert newest == second
    assert oldest.HasField("withdrawn_at")
    oldest.ClearField("withdrawn_at")
    assert oldest == first
    listed = await desk.calls.listed(pb.ListDatasetsRequest())
    assert list(listed.datasets) == [second]
    assert desk.announcer.said == [("published", "chest")] * 2
    assert desk.consent_changes == 2


async def test_a_version_whose_mock_would_be_alike_keeps_the_mock(desk: Desk) -> None:
    first = await desk.publish()
    desk.other_files()
    second = await desk.publish(description="More of them")
    assert (second.mock_recipe, second.mock_hash) == (first.mock_recipe, first.mock_hash)
    third = await desk.publish(description="More of them", mock_images=50)
    assert third.mock_hash != first.mock_hash


async def test_a_withdrawal_is_announced_keeps_the_versions_and_is_refused_twice(desk: Desk) -> None:
    await desk.publish()
    await desk.withdraw()
    assert desk.announcer.said[-1] == ("withdrawn", "chest")
    assert desk.consent_changes == 2
    assert await desk.datasets.datasets() == []
    [version] = await desk.versions()
    assert version.HasField("withdrawn_at")
    with pytest.raises(NotFound):
        await desk.withdraw()
    with pytest.raises(NotFound):
        await desk.datasets.dataset("chest")
    assert await desk.datasets.withdrawn_names() == ["chest"]
    again = await desk.publish()
    assert again.version == 2
    assert await desk.datasets.withdrawn_names() == []


async def test_versions_of_a_name_that_never_was_are_not_found(desk: Desk) -> None:
    with pytest.raises(NotFound, match="dataset list"):
        await desk.versions()


async def test_a_retry_changes_nothing_and_reads_no_files(desk: Desk) -> None:
    first = await desk.publish(request_id="publish-1")
    await desk.withdraw(request_id="withdraw-1")
    said = list(desk.announcer.said)
    desk.worker.error = InvalidInput("the files have moved")
    assert await desk.publish(request_id="publish-1") == first
    await desk.withdraw(request_id="withdraw-1")
    assert desk.announcer.said == said
    assert len(await desk.versions()) == 1
    with pytest.raises(FailedPrecondition, match="request id"):
        await desk.publish(request_id="publish-1", description="something else")


async def test_of_publications_at_once_each_is_a_version_and_one_is_published(desk: Desk) -> None:
    async def a_moment() -> None:
        await asyncio.sleep(0)

    desk.worker.before_answering = a_moment
    words = ["one", "two", "three", "two", "one"]
    await asyncio.gather(*(desk.publish(description=word) for word in words))
    versions = await desk.versions()
    assert [version.version for version in versions] == list(range(len(versions), 0, -1))
    assert sum(not version.HasField("withdrawn_at") for version in versions) == 1
    # The worker that reads one's files is not stopped for another's.
    assert desk.worker.jobs == ["inspect", "stop"] * len(words)


class _SlowToReturn(DatasetStore):
    """A publication is committed some time before its caller hears of it."""

    async def answer(self, *, message: Any, **rest: Any) -> Any:
        answer = await super().answer(message=message, **rest)
        if isinstance(message, pb.PublishDatasetRequest):
            await asyncio.sleep(0.1)
        return answer


async def test_what_is_committed_first_is_announced_first(transactions: Transactions) -> None:
    desk = Desk(_SlowToReturn(transactions, unsigned_trail(AUDIT), FixedClock()))
    with calling_as(OWNER):
        publishing = asyncio.create_task(desk.publish())
        while not await desk.datasets.datasets():  # noqa: ASYNC110 - the database sets no event
            await asyncio.sleep(0.01)
        await desk.withdraw()
        await publishing
    assert desk.announcer.said == [("published", "chest"), ("withdrawn", "chest")]


async def test_two_versions_of_a_name_are_never_published_at_once(datasets: DatasetStore) -> None:
    await shelve(datasets, dataset())
    with pytest.raises(IntegrityError):
        await shelve(datasets, replace(dataset(), version=2))


async def test_each_change_is_in_the_audit_trail_with_its_hash_and_without_a_count(
    desk: Desk, transactions: Transactions
) -> None:
    await desk.publish(request_id="publish-1", disclosure=WITHHELD)
    await desk.publish(request_id="publish-1", disclosure=WITHHELD)
    await desk.publish(disclosure=WITHHELD)
    await desk.withdraw()
    with transactions.engine.begin() as connection:
        entries = connection.execute(sa.select(AUDIT.entries)).all()
    assert [(entry.action, entry.object, entry.actor) for entry in entries] == [
        ("dataset.published", "dataset/chest", OWNER.actor),
        ("dataset.withdrawn", "dataset/chest", OWNER.actor),
    ]
    assert entries[0].request_id == "publish-1"
    for entry in entries:
        assert "c" * 64 in entry.details
        assert "images" not in entry.details


async def test_what_the_trail_cannot_take_is_not_published(desk: Desk, transactions: Transactions) -> None:
    with transactions.engine.begin() as connection:
        connection.execute(
            AUDIT.head.insert().values(
                only=1,
                trail="spiffe://trefoil.local/hospital/other",
                sequence=0,
                hash="0" * 64,
                signed_sequence=0,
                checkpoints=0,
            )
        )
    with pytest.raises(FailedPrecondition, match="audit trail"):
        await desk.publish(request_id="publish-1")
    assert (await desk.datasets.datasets(), desk.announcer.said) == ([], [])


async def test_files_that_cannot_be_read_leave_nothing_behind(desk: Desk) -> None:
    desk.worker.error = InvalidInput("no")
    with pytest.raises(InvalidInput):
        await desk.publish()
    assert await desk.datasets.datasets() == []
    assert desk.announcer.said == []
    assert desk.worker.jobs[-1] == "stop"


@pytest.mark.parametrize(
    "wrong",
    [
        {"name": ""},
        {"name": "../etc"},
        {"name": "Chest X"},
        {"tags": [""]},
        {"tags": ["a" * 65]},
        {"tags": list(map(str, range(33)))},
        {"description": "x" * 2001},
        {"description": "a\tb"},
        {"licence": "x" * 1001},
        {"licence": "\x1b[2J"},
        {"mock_images": 2001},
    ],
)
async def test_words_that_the_catalogue_cannot_take_are_refused_before_anything_is_read(
    desk: Desk, wrong: dict[str, object]
) -> None:
    with pytest.raises(InvalidInput):
        await desk.publish(**wrong)
    assert desk.worker.jobs == []


async def test_datasets_are_listed_by_name_in_pages(desk: Desk) -> None:
    for name in ("c", "a", "b"):
        await desk.publish(name=name)
    first = await desk.calls.listed(pb.ListDatasetsRequest(page_size=2))
    assert [found.name for found in first.datasets] == ["a", "b"]
    rest = await desk.calls.listed(pb.ListDatasetsRequest(page_size=2, page_token=first.next_page_token))
    assert ([found.name for found in rest.datasets], rest.next_page_token) == (["c"], "")
    with pytest.raises(InvalidInput, match="at most 1000"):
        await desk.calls.listed(pb.ListDatasetsRequest(page_size=1001))


@pytest.mark.parametrize("change", ["publish", "withdraw"])
async def test_a_change_takes_effect_though_its_caller_hangs_up_after_the_commit(
    desk: Desk, change: str
) -> None:
    await desk.publish()
    desk.other_files()
    told, stops = len(desk.announcer.said), desk.consent_changes
    answer, committed, go_on = desk.datasets.answer, asyncio.Event(), asyncio.Event()

    async def slowly(**options: Any) -> Any:
        done = await answer(**options)
        committed.set()
        await go_on.wait()
        return done

    desk.datasets.answer = slowly  # type: ignore[method-assign]
    calling = asyncio.create_task(desk.publish() if change == "publish" else desk.withdraw())  # type: ignore[arg-type]
    await committed.wait()
    calling.cancel()
    await asyncio.gather(calling, return_exceptions=True)
    go_on.set()
    for _ in range(500):
        if desk.consent_changes > stops:
            break
        await asyncio.sleep(0.01)
    assert (desk.consent_changes, len(desk.announcer.said)) == (stops + 1, told + 1)
