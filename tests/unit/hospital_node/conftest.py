from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from services.hospital_node.adapters.database import Database
from services.hospital_node.adapters.dataset_store import DatasetStore
from services.hospital_node.adapters.tables import AUDIT
from services.hospital_node.adapters.transactions import Transactions
from tests.fakes.access import AccessRig, People
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


@pytest.fixture(scope="session")
def people(tmp_path_factory: pytest.TempPathFactory) -> People:
    """Certificates of one federation."""
    return People(tmp_path_factory.mktemp("people"))


@pytest.fixture
async def rig(transactions: Transactions, people: People) -> AccessRig:
    """A node with the data set `chest`, from which anything may be taken."""
    return await AccessRig(transactions, people).ready()


@pytest.fixture
async def light_rig(tmp_path: Path, people: People) -> AsyncIterator[AccessRig]:
    """The same on SQLite only, for tables of what is refused before the database is asked."""
    opened = Transactions(f"sqlite:///{tmp_path / 'light.db'}")
    yield await AccessRig(opened, people).ready()
    opened.close()


@pytest.fixture
def datasets(transactions: Transactions) -> DatasetStore:
    return DatasetStore(transactions, unsigned_trail(AUDIT), FixedClock())
