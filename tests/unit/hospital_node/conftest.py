from __future__ import annotations

import shutil
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
from tests.fakes.postgres import fresh_database


@pytest.fixture(scope="session")
def sqlite_template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A node's database as the migrations leave it."""
    file = tmp_path_factory.mktemp("template") / "node.db"
    Transactions(f"sqlite:///{file}").close()
    return file


@pytest.fixture(scope="session")
def postgres_template(postgres: str) -> Iterator[str]:
    """The same at the cluster of this test process; its URL."""
    with fresh_database(postgres) as url:
        Transactions(url).close()
        yield url


@pytest.fixture(params=["sqlite", "postgresql"])
def migrated_url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A database of either kind that was migrated once for all tests, and copied."""
    if request.param == "sqlite":
        file = shutil.copy(request.getfixturevalue("sqlite_template"), tmp_path / "test.db")
        yield f"sqlite:///{file}"
        return
    template = request.getfixturevalue("postgres_template")
    with fresh_database(request.getfixturevalue("postgres"), like=template) as url:
        yield url


@pytest.fixture
def transactions(migrated_url: str) -> Iterator[Transactions]:
    opened = Transactions(migrated_url)
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
async def light_rig(sqlite_template: Path, tmp_path: Path, people: People) -> AsyncIterator[AccessRig]:
    """The same on SQLite only, for tables of what is refused before the database is asked."""
    opened = Transactions(f"sqlite:///{shutil.copy(sqlite_template, tmp_path / 'light.db')}")
    yield await AccessRig(opened, people).ready()
    opened.close()


@pytest.fixture
def datasets(transactions: Transactions) -> DatasetStore:
    return DatasetStore(transactions, unsigned_trail(AUDIT), FixedClock())
