"""Pages while the catalogue changes between them: what is there all the time is on exactly one page."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.coordinator.adapters.database import Database, open_database
from services.coordinator.adapters.tables import AUDIT
from services.coordinator.attachments import Attachments
from services.coordinator.catalogue import Catalogue
from services.coordinator.gateway_ports import Association, Dataset, DatasetQuery
from services.coordinator.states import AssociationState
from tests.fakes.audit import unsigned_trail
from tests.fakes.studies import NOW, A
from tests.unit.coordinator.test_attachments import HandClock

NAMES = st.text("abyzé-0 ", min_size=1, max_size=4)
QUERY = DatasetQuery(tags=("x-ray", "chest"))


def dataset(name: str) -> Dataset:
    return Dataset(f"alpha/{name}", A, name, "", ("chest", "x-ray"), "CR", 1, NOW)


@pytest.fixture(scope="module")
def database(tmp_path_factory: pytest.TempPathFactory) -> Database:
    file = tmp_path_factory.mktemp("paging") / "coordinator.db"
    opened = open_database(f"sqlite:///{file}", unsigned_trail(AUDIT))
    approved = Association(A, "a" * 64, "Alpha", AssociationState.APPROVED, NOW)
    opened.associations.save_associations([approved])
    return opened


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    stay=st.sets(NAMES, max_size=12),
    go=st.sets(NAMES, max_size=6),
    changes=st.lists(st.tuples(st.booleans(), NAMES), max_size=12),
    size=st.integers(1, 5),
)
def test_what_is_there_all_the_time_is_on_exactly_one_page(
    database: Database, stay: set[str], go: set[str], changes: list[tuple[bool, str]], size: int
) -> None:
    store = database.catalogue
    catalogue = Catalogue(store=store, attachments=Attachments(clock=HandClock(), reattach_grace_s=1))
    for name in stay | go:
        store.save_dataset(dataset(name))
    seen: list[str] = []
    token, coming = "", iter(changes)
    while True:
        page = catalogue.search(QUERY, size=size, token=token)
        assert len(page.items) <= size
        seen += [entry.dataset.name for entry in page.items]
        for publishes, name in (change for change, _ in zip(coming, range(2), strict=False)):
            if publishes:
                store.save_dataset(dataset(name))  # a name that is there is published again
            elif name not in stay:
                store.remove_dataset(f"alpha/{name}")
        token = page.next_key
        if not token:
            break
    assert len(seen) == len(set(seen))
    assert stay <= set(seen)
    for name in stay | go | {name for _, name in changes}:
        store.remove_dataset(f"alpha/{name}")


def test_pages_end_with_the_last_entry_even_when_it_fills_them(tmp_path: Path) -> None:
    opened = open_database(f"sqlite:///{tmp_path / 'coordinator.db'}", unsigned_trail(AUDIT))
    opened.associations.save_associations([Association(A, "a" * 64, "Alpha", AssociationState.APPROVED, NOW)])
    for name in "abcd":
        opened.catalogue.save_dataset(dataset(name))
    page = opened.catalogue.page_of_datasets(QUERY, after="", limit=4)
    assert (len(page.items), page.next_key) == (4, "")
    opened.close()
