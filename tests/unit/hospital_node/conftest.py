from __future__ import annotations

from collections.abc import Iterator

import pytest

from services.hospital_node.adapters.database import Database
from services.hospital_node.adapters.dataset_store import DatasetStore
from services.hospital_node.adapters.tables import AUDIT
from services.hospital_node.adapters.transactions import Transactions
from tests.fakes.audit import unsigned_trail
from tests.fakes.hospital_ports import FixedClock


@pytest.fixture
def transactions(database_url: str) -> Iterator[Transactions]:
    opened = Transactions(database_url)
    yield opened
    opened.close()


@pytest.fixture
def store(transactions: Transactions) -> Database:
    return Database(transactions, unsigned_trail(AUDIT))


@pytest.fixture
def datasets(transactions: Transactions) -> DatasetStore:
    return DatasetStore(transactions, unsigned_trail(AUDIT), FixedClock())
