"""Data sets of the first release keep their rows when the tables change, forward and back."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from sqlalchemy import Engine, text

from libs.data.disclosure import CountDisclosure
from libs.runtime.migrations import migrate
from libs.runtime.sql import open_engine
from services.hospital_node.adapters.dataset_store import DatasetStore
from services.hospital_node.adapters.tables import AUDIT
from services.hospital_node.adapters.transactions import MIGRATIONS, Transactions
from tests.fakes.audit import unsigned_trail
from tests.fakes.hospital_ports import NOW, FixedClock, dataset, shelve, unshelve

OLD = text("""
INSERT INTO datasets VALUES (
    'chest', 'Children''s radiographs', '["chest", "pneumonia"]', '/data/chest', 10, 7,
    '{"NORMAL": 4, "PNEUMONIA": 6}', :hash, :at
)""")


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = open_engine(database_url)
    yield opened
    opened.dispose()


def before_versions(engine: Engine) -> list[tuple[object, ...]]:
    with engine.connect() as connection:
        return [tuple(row) for row in connection.execute(text("SELECT * FROM datasets ORDER BY name"))]


async def test_a_data_set_of_the_first_release_becomes_version_one_and_tells_nothing_more(
    engine: Engine, database_url: str
) -> None:
    migrate(engine, MIGRATIONS, to="0003")
    moment = NOW.replace(tzinfo=None).isoformat(" ") if engine.dialect.name == "sqlite" else NOW
    with engine.begin() as connection:
        connection.execute(OLD, {"hash": "c" * 64, "at": moment})
    rows = before_versions(engine)
    transactions = Transactions(database_url)
    store = DatasetStore(transactions, unsigned_trail(AUDIT), FixedClock())
    assert await store.versions("chest") == [replace(dataset(), disclosure=CountDisclosure.WITHHELD)]
    await shelve(store, dataset("lungs"))
    await unshelve(store, "lungs")
    transactions.close()
    migrate(engine, MIGRATIONS, to="0003")
    assert before_versions(engine) == rows
