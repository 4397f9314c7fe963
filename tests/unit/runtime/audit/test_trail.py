"""A trail in a database of either kind: it only grows, in one chain, together with what it tells of."""

from __future__ import annotations

import json
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import DBAPIError

from libs.core.clock import SystemClock
from libs.core.errors import Bug, FailedPrecondition
from libs.rpc.dev_ca import DevelopmentCa
from libs.rpc.identity import COORDINATOR, TlsFiles, party_identity
from libs.rpc.signing import TlsSigner, checkpoint_check
from libs.runtime.audit.findings import Problem, Report
from libs.runtime.audit.trail import AuditTrail
from libs.runtime.audit.verify import verify_trail
from libs.runtime.sql_append_only import append_only_removal_ddl
from tests.fakes.audit import TrailRig, issue, numbered, open_trail


@pytest.fixture
def files(tmp_path: Path) -> TlsFiles:
    return issue(DevelopmentCa(), party_identity(0), tmp_path / "keys")


@pytest.fixture
def rig(database_url: str, files: TlsFiles) -> Iterator[TrailRig]:
    with open_trail(database_url, files) as rig:
        yield rig


def verified(rig: TrailRig, lines: list[str] | None = None) -> Report:
    check = checkpoint_check(rig.authorities)
    return verify_trail(rig.exported() if lines is None else lines, check_signature=check)


def test_what_is_exported_verifies(rig: TrailRig) -> None:
    for event in numbered(101):
        rig.log.record([event])
    rig.log.record(numbered(3))
    report = verified(rig)
    assert report.finding is None
    assert (report.entries, report.checkpoints, report.not_yet_signed) == (104, 2, 0)


def test_pages_make_up_the_whole(rig: TrailRig) -> None:
    rig.log.record(numbered(205))
    whole, pages, after = [json.loads(line) for line in rig.exported()], [], 0
    while page := rig.log.page(after=after, limit=30):
        pages += page
        after = page[-1]["sequence"]
    assert pages == whole


def test_entries_commit_or_vanish_with_what_they_tell_of(rig: TrailRig) -> None:
    rig.log.record(numbered(1))

    def undone() -> None:
        with rig.engine.begin() as connection:
            rig.trail.append(connection, numbered(1)[0])
            raise KeyError

    with pytest.raises(KeyError):
        undone()
    rig.log.record(numbered(1))
    report = verified(rig)
    assert (report.finding, report.entries) == (None, 2)


def test_two_writers_at_once_make_one_chain(rig: TrailRig, files: TlsFiles) -> None:
    together, errors = threading.Barrier(4), []

    def write() -> None:
        trail = AuditTrail(
            trail=rig.trail.name, tables=rig.tables, clock=SystemClock(), signer=TlsSigner(files)
        )
        together.wait()
        try:
            for event in numbered(15):
                with rig.engine.begin() as connection:
                    trail.append(connection, event)
        except Exception as error:
            errors.append(error)

    threads = [threading.Thread(target=write) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    report = verified(rig)
    assert (errors, report.finding, report.entries) == ([], None, 60)


@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE audit_entries SET actor = 'somebody else' WHERE sequence = 2",
        "DELETE FROM audit_entries WHERE sequence = 2",
        "DELETE FROM audit_entries",
        "UPDATE audit_checkpoints SET line = '{}'",
        "DELETE FROM audit_checkpoints",
    ],
)
def test_the_database_itself_refuses_to_change_or_delete(rig: TrailRig, statement: str) -> None:
    rig.log.record(numbered(3))
    rig.log.checkpoint()
    with pytest.raises(DBAPIError, match="append-only"), rig.engine.begin() as connection:
        connection.execute(sa.text(statement))
    assert verified(rig).entries == 3


def test_other_ways_to_overwrite_are_refused_too(rig: TrailRig) -> None:
    rig.log.record(numbered(3))
    if rig.engine.dialect.name == "sqlite":
        statement = "INSERT OR REPLACE INTO audit_entries SELECT * FROM audit_entries WHERE sequence = 2"
    else:
        statement = "TRUNCATE audit_entries"
    with pytest.raises(DBAPIError, match="append-only"), rig.engine.begin() as connection:
        connection.execute(sa.text(statement))


def test_a_row_that_was_changed_all_the_same_is_found(rig: TrailRig) -> None:
    """By somebody who may alter the schema, say."""
    rig.log.record(numbered(5))
    with rig.engine.begin() as connection:
        for statement in append_only_removal_ddl("audit_entries", rig.engine.dialect.name):
            connection.execute(sa.text(statement))
        connection.execute(sa.text("UPDATE audit_entries SET details = 'none' WHERE sequence = 3"))
    finding = verified(rig).finding
    assert finding is not None
    assert (finding.problem, finding.sequence, finding.line) == (Problem.ALTERED, 3, 3)


def test_a_checkpoint_is_signed_once(rig: TrailRig) -> None:
    assert rig.log.checkpoint() is None
    rig.log.record(numbered(2))
    first = rig.log.checkpoint()
    assert first is not None
    assert (first.number, first.sequence) == (1, 2)
    assert rig.log.checkpoint() is None


def test_a_database_keeps_the_trail_of_one_service(rig: TrailRig) -> None:
    rig.log.record(numbered(1))
    other = AuditTrail(trail=party_identity(1).uri, tables=rig.tables, clock=SystemClock())
    with pytest.raises(FailedPrecondition, match="of its own"), rig.engine.begin() as connection:
        other.append(connection, numbered(1)[0])


def test_nobody_signs_for_another_service(rig: TrailRig, files: TlsFiles) -> None:
    with pytest.raises(Bug):
        AuditTrail(trail=COORDINATOR.uri, tables=rig.tables, clock=SystemClock(), signer=TlsSigner(files))


def test_append_takes_less_than_a_millisecond(tmp_path: Path, files: TlsFiles) -> None:
    with open_trail(f"sqlite:///{tmp_path / 'fast.db'}", files) as rig, rig.engine.begin() as connection:
        took = []
        for event in numbered(300):
            began = time.thread_time()  # a busy machine must not make it slow
            rig.trail.append(connection, event)
            took.append(time.thread_time() - began)
    assert sorted(took)[len(took) // 2] < 0.001


def test_kill_9_in_the_middle_leaves_a_chain_that_verifies(tmp_path: Path, files: TlsFiles) -> None:
    database = f"sqlite:///{tmp_path / 'killed.db'}"
    program = textwrap.dedent(
        """
        import sys
        from pathlib import Path
        from libs.rpc.identity import TlsFiles
        from tests.fakes.audit import numbered, open_trail

        files = TlsFiles(*map(Path, sys.argv[2:5]))
        with open_trail(sys.argv[1], files) as rig:
            while True:
                for event in numbered(7):
                    rig.log.record([event])
                print(flush=True)
        """
    )
    arguments = [database, str(files.certificate), str(files.key), str(files.ca)]
    entries = 0
    for attempt in range(3):
        process = subprocess.Popen([sys.executable, "-c", program, *arguments], stdout=subprocess.PIPE)
        assert process.stdout is not None
        for _ in range(3 + 5 * attempt):
            process.stdout.readline()
        process.kill()
        process.wait()
        process.stdout.close()
        with open_trail(database, files) as rig:
            report = verified(rig)
        assert report.finding is None
        assert report.entries >= entries + 21
        entries = report.entries
