"""What is stored comes back equal; what is not ours is refused."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
from sqlalchemy import delete, event
from sqlalchemy.exc import IntegrityError

from libs.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PermissionDenied,
    Unavailable,
)
from libs.fl.strategies.fedavg import FedAvg
from services.coordinator.adapters.database import Database, open_database
from services.coordinator.adapters.gateway_tables import DatasetTagRow
from services.coordinator.adapters.tables import AUDIT
from services.coordinator.domain import SignedText, Study
from services.coordinator.gateway_ports import AnsweredCall, Association, Dataset, DatasetQuery, Node
from services.coordinator.model_access import ModelUse
from services.coordinator.ports import Model
from services.coordinator.states import AssociationState, RoundEvent, RoundKind, StudyState, TaskStatus
from tests.fakes.audit import unsigned_trail
from tests.fakes.studies import (
    LATER,
    NOW,
    A,
    B,
    after_round,
    calibrating,
    created,
    in_round,
    opening,
    released,
    training,
)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    return tmp_path / "coordinator.db"


@pytest.fixture
def database(database_url: str) -> Iterator[Database]:
    opened = open_database(database_url, unsigned_trail(AUDIT))
    yield opened
    opened.close()


def approve(database: Database, hospital: str = A, key: str = "a" * 64) -> None:
    database.associations.save_associations(
        [Association(hospital, key, "Alpha", AssociationState.APPROVED, NOW)]
    )


def dataset(name: str, *tags: str, hospital: str = A) -> Dataset:
    return Dataset(f"alpha/{name}", hospital, name, "", tags, "CR", 1, NOW)


STUDIES = {
    "created": created(),
    "open round": in_round(training()).with_task(A, number=1, attempt=0, status=TaskStatus.DONE),
    "abandoned": in_round(training())
    .with_round_event(RoundEvent.OVER)
    .with_round_event(RoundEvent.FELL_SHORT),
    "refused": in_round(training()).with_refused([A]),
    "calibrating": calibrating().with_bounds(A, {"conv": -3}).with_bounds(B, None),
    "released": released(),
    "failed": created().with_failure("Why."),
    "signed": replace(created(), statement=SignedText(b"{}", b"signature", b"chain")),
}


@pytest.mark.parametrize("study", STUDIES.values(), ids=STUDIES.keys())
def test_a_study_comes_back_equal_after_a_restart(database_url: str, study: Study) -> None:
    first = open_database(database_url, unsigned_trail(AUDIT))
    first.add_study(created())
    first.update_study("study-1", lambda _: study)
    first.close()
    second = open_database(database_url, unsigned_trail(AUDIT))
    assert second.study("study-1") == study
    second.close()


def test_a_retried_round_replaces_its_first_attempt(database: Database) -> None:
    study = in_round(training()).with_round_event(RoundEvent.OVER).with_round_event(RoundEvent.FELL_SHORT)
    database.add_study(study)
    retried = study.with_round(RoundKind.TRAIN, {A, B}, strategy=FedAvg(), opened_at=NOW, deadline=LATER)
    database.update_study("study-1", lambda _: retried)
    assert database.study("study-1") == retried


def test_a_change_that_raises_writes_nothing(database: Database) -> None:
    database.add_study(opening(training()))

    def change(study: Study) -> Study:
        after_round(study)
        raise AssertionError("unreachable")

    with pytest.raises(Exception, match="round 1"):
        database.update_study("study-1", change)
    assert database.study("study-1") == opening(training())


def test_one_study_per_id(database: Database) -> None:
    database.add_study(created())
    with pytest.raises(AlreadyExists):
        database.add_study(created())
    with pytest.raises(NotFound):
        database.update_study("study-2", lambda study: study)


def test_only_living_studies_are_gone_on_with(database: Database) -> None:
    database.add_study(created("study-1"))
    database.add_study(created("study-2").with_failure("Why."))
    assert [study.study_id for study in database.live_studies()] == ["study-1"]


def test_an_end_is_untold_until_it_is_told(database: Database) -> None:
    database.add_study(created().with_failure("Why."))
    assert [s.study_id for s in database.studies_with_untold_end(A)] == ["study-1"]
    database.update_study("study-1", lambda study: study.with_end_told(A))
    assert not database.studies_with_untold_end(A)
    assert database.studies_with_untold_end(B)


def test_studies_are_paged_in_the_order_of_creation_while_more_are_created(database: Database) -> None:
    names = [f"study-{name}" for name in "hcaf"]
    for name in names[:3]:
        database.add_study(created(name))
    first = database.page_of_studies(after="", limit=2)
    database.add_study(created(names[3]))
    second = database.page_of_studies(after=first.next_key, limit=2)
    assert [s.study_id for s in (*first.items, *second.items)] == names
    assert second.next_key == ""


def test_a_dataset_published_again_is_overwritten_with_its_tags(database: Database) -> None:
    approve(database)
    for tags in (("a", "b"), ("b", "c")):
        database.catalogue.save_dataset(dataset("x", *tags))

    def found(tag: str) -> int:
        return len(database.catalogue.page_of_datasets(DatasetQuery((tag,)), after="", limit=10).items)

    assert [found(tag) for tag in "abc"] == [0, 1, 1]
    database.catalogue.remove_dataset("alpha/x")
    database.catalogue.remove_dataset("alpha/x")
    assert [found(tag) for tag in "abc"] == [0, 0, 0]


def test_a_page_is_one_statement_that_waits_for_no_transaction(database: Database) -> None:
    approve(database)
    for number in range(3):
        database.catalogue.save_dataset(dataset(f"x-{number}", "a", "b"))
    statements = list[str]()

    def page() -> list[Dataset]:
        return list(
            database.catalogue.page_of_datasets(DatasetQuery(tags=("a", "b")), after="", limit=2).items
        )

    with ThreadPoolExecutor(1) as people, database.engine.begin() as changing:
        changing.execute(delete(DatasetTagRow))
        event.listen(database.engine, "before_cursor_execute", lambda *args: statements.append(args[2]))
        assert people.submit(page).result(timeout=5) == [
            dataset(f"x-{number}", "a", "b") for number in (0, 1)
        ]
    assert len(statements) == 1, statements
    assert page() == []


@pytest.mark.parametrize("tags", [(), ("a",), ("a", "b")])
def test_a_page_matches_the_description_with_and_without_tags(
    database: Database, tags: tuple[str, ...]
) -> None:
    approve(database)
    small, large = dataset("small", "a", "b"), replace(dataset("large", "b", "a"), images=9)
    for each in (small, large, replace(dataset("none"), images=9)):
        database.catalogue.save_dataset(each)
    query = DatasetQuery(tags=tags, min_images=2, name_contains="l")
    found = database.catalogue.page_of_datasets(query, after="", limit=10)
    assert found.items == (replace(large, tags=("a", "b")),)


def test_nodes_and_models_come_back_equal(database: Database) -> None:
    node = Node(A, "Alpha", NOW, "0.3")
    approve(database)
    database.catalogue.save_node(Node(A, "Old name", NOW))
    database.catalogue.save_node(node)
    assert database.catalogue.nodes() == [node]
    use = ModelUse(askers=("a", "b"), max_predictions=3)
    model = Model("model-1", "Detector", b"{}", "d" * 64, "dana", NOW, ready=False, use=use)
    assert database.add_model(model) == model
    database.mark_model_ready("model-1")
    assert database.add_model(model).ready
    assert database.model("model-2") is None


def test_a_moment_without_a_zone_is_never_stored(database: Database) -> None:
    with pytest.raises(Exception, match="without a zone"):
        database.catalogue.save_node(Node(A, "Alpha", datetime(2026, 11, 23)))  # noqa: DTZ001 - that is the point


def test_tables_of_a_newer_release_are_refused(file: Path) -> None:
    open_database(f"sqlite:///{file}", unsigned_trail(AUDIT)).close()
    with sqlite3.connect(file) as connection:
        connection.execute("UPDATE alembic_version SET version_num = '9999'")
    with pytest.raises(FailedPrecondition, match="revision 9999"):
        open_database(f"sqlite:///{file}", unsigned_trail(AUDIT))


def test_somebody_elses_tables_are_refused_and_left_alone(file: Path) -> None:
    with sqlite3.connect(file) as connection:
        connection.execute("CREATE TABLE accounts (id INTEGER)")
    with pytest.raises(FailedPrecondition, match="no migration of this service made"):
        open_database(f"sqlite:///{file}", unsigned_trail(AUDIT))
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT name FROM sqlite_master").fetchall() == [("accounts",)]


@pytest.mark.parametrize(
    "url", ["not a url", "nosuchdatabase://host/name", "postgresql+nodriver://host/name"]
)
def test_a_url_that_names_no_database_is_refused(url: str) -> None:
    with pytest.raises(InvalidInput, match="setting database"):
        open_database(url, unsigned_trail(AUDIT))


def test_a_folder_that_does_not_exist_is_said_in_plain_words(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="folder exists"):
        open_database(f"sqlite:///{tmp_path}/none/coordinator.db", unsigned_trail(AUDIT))


def test_a_file_that_is_no_database_is_said_in_plain_words(file: Path) -> None:
    file.write_bytes(b"not a database" * 100)
    with pytest.raises(Unavailable, match="is a database"):
        open_database(f"sqlite:///{file}", unsigned_trail(AUDIT))


def test_the_states_are_stored_by_name(file: Path) -> None:
    open_database(f"sqlite:///{file}", unsigned_trail(AUDIT)).add_study(created())
    with sqlite3.connect(file) as connection:
        assert connection.execute("SELECT state FROM studies").fetchall() == [(StudyState.CREATED.value,)]


def test_only_hospitals_that_belong_here_publish_and_losing_that_forgets_it_all(
    database: Database,
) -> None:
    with pytest.raises(PermissionDenied):
        database.catalogue.save_dataset(dataset("x", "chest"))
    approve(database)
    approve(database, hospital=B, key="b" * 64)
    for name, hospital in (("x", A), ("y", B)):
        database.catalogue.save_dataset(dataset(name, "chest", hospital=hospital))
    revoked = Association(A, "a" * 64, "Alpha", AssociationState.REVOKED, NOW)
    database.associations.save_associations([revoked])
    found = database.catalogue.page_of_datasets(DatasetQuery(("chest",)), after="", limit=10)
    assert [entry.name for entry in found.items] == ["y"]
    assert database.catalogue.dataset_counts() == {B: 1}
    with pytest.raises(PermissionDenied):
        database.catalogue.save_dataset(dataset("x", "chest"))


def test_a_hospital_with_another_approved_key_keeps_its_datasets(database: Database) -> None:
    approve(database)
    database.catalogue.save_dataset(dataset("x", "chest"))
    database.associations.save_associations(
        [
            Association(A, "b" * 64, "Alpha", AssociationState.APPROVED, NOW),
            Association(A, "a" * 64, "Alpha", AssociationState.REVOKED, NOW),
        ]
    )
    assert database.catalogue.dataset_counts() == {A: 1}


def test_a_decision_whose_call_is_known_already_changes_nothing(database: Database) -> None:
    approve(database)
    call = AnsweredCall("operator", "request-1", "c" * 64)
    revoked = Association(A, "a" * 64, "Alpha", AssociationState.REVOKED, NOW)
    denied = Association(B, "b" * 64, "Beta", AssociationState.DENIED, NOW)
    database.associations.save_associations([denied], call=call)
    with pytest.raises(IntegrityError):
        database.associations.save_associations([revoked], call=call)
    (kept,) = database.associations.associations_of(A)
    assert kept.state is AssociationState.APPROVED
    assert database.associations.answered("operator", "request-1") == call
