"""What the migrations make is what the code reads and writes, on both databases, forward and back."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import Engine, MetaData, inspect, text

from libs.runtime.migrations import head_of, migrate, revision_of
from libs.runtime.sql import open_engine
from services.coordinator.adapters import database as coordinator_tables
from services.coordinator.adapters.tables import Base as CoordinatorBase
from services.coordinator.adapters.transactions import MIGRATIONS as COORDINATOR
from services.hospital_node import bootstrap as node_tables
from services.hospital_node.adapters.tables import Base as NodeBase
from services.hospital_node.adapters.transactions import MIGRATIONS as NODE

# Their imports fill the metadata with every table of the service.
assert coordinator_tables
assert node_tables

SERVICES = {"coordinator": (COORDINATOR, CoordinatorBase.metadata), "node": (NODE, NodeBase.metadata)}
Service = tuple[Path, MetaData]


@pytest.fixture(params=SERVICES.values(), ids=SERVICES.keys())
def service(request: pytest.FixtureRequest) -> Service:
    found: Service = request.param
    return found


@pytest.fixture
def engine(database_url: str) -> Iterator[Engine]:
    opened = open_engine(database_url)
    yield opened
    opened.dispose()


def test_the_newest_revision_is_what_the_tables_in_the_code_say(service: Service, engine: Engine) -> None:
    scripts, metadata = service
    assert migrate(engine, scripts) == head_of(scripts)
    with engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"compare_type": True})
        assert compare_metadata(context, metadata) == []


def test_every_step_can_be_taken_back_and_again(service: Service, engine: Engine) -> None:
    scripts, _ = service
    head = int(head_of(scripts))
    migrate(engine, scripts)
    for number in (*range(head - 1, 0, -1), *range(2, head + 1)):
        assert migrate(engine, scripts, to=f"{number:04}") == f"{number:04}"
    assert migrate(engine, scripts, to="base") == "base"
    assert set(inspect(engine).get_table_names()) == {"alembic_version"}
    assert migrate(engine, scripts) == revision_of(engine) == head_of(scripts)


def test_the_first_catalogue_empties_because_nobody_was_approved(engine: Engine) -> None:
    migrate(engine, COORDINATOR, to="0001")
    with engine.begin() as connection:
        connection.execute(text("INSERT INTO datasets VALUES ('alpha/x', 'spiffe://x', 'x', '', 'CR', 1)"))
        connection.execute(text("INSERT INTO dataset_tags VALUES ('alpha/x', 'chest')"))
    migrate(engine, COORDINATOR)
    with engine.connect() as connection:
        assert connection.scalar(text("SELECT count(*) FROM datasets")) == 0
