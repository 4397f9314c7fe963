"""kill -9 at every commit: uses, ledger, audit trail and answered calls tell one story, and it ends once."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from sqlalchemy import text

from services.hospital_node.adapters.transactions import Transactions
from tests.fakes.access import AccessRig, People

REPOSITORY = Path(__file__).resolve().parents[3]
WRITES = 9
"""Data set, budget, request, yes, statistics, proposal, yes with admission, revocation; the trail's own."""


class Process:
    """See `tests/fakes/kill_points.py`."""

    def __init__(self, url: str, folder: Path) -> None:
        self._process = subprocess.Popen(
            [sys.executable, "-m", "tests.fakes.kill_points", url, str(folder)],
            cwd=REPOSITORY,
            env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )

    def tell(self, suffix: str, phase: str = "before", number: int = 0) -> tuple[int, int]:
        """(signal, commits)."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{suffix} {phase} {number}\n")
        self._process.stdin.flush()
        for line in self._process.stdout:
            if line.startswith("ended "):
                _, died, code = line.split()
                return int(died), int(code)
        raise AssertionError("the process ended")

    def close(self) -> None:
        assert self._process.stdin is not None
        self._process.stdin.close()
        self._process.wait(20)


@pytest.fixture
def process(database_url: str, tmp_path: Path) -> Iterator[Process]:
    Transactions(database_url).close()  # the tables, so that no migration is counted
    started = Process(database_url, tmp_path / "people")
    yield started
    started.close()


def facts(rig: AccessRig, suffix: str) -> dict[str, int]:
    """How often each thing happened, by the table that says so."""
    name, study = f"chest-{suffix}", f"study-{suffix}"
    queries = {
        "budgets": "SELECT count(*) FROM privacy_ledger WHERE dataset_name = :name AND kind = 'budget set'",
        "releases": "SELECT count(*) FROM privacy_ledger WHERE dataset_name = :name AND kind = 'statistics'",
        "admissions": "SELECT count(*) FROM privacy_ledger WHERE dataset_name = :name AND kind = 'admitted'",
        "uses": "SELECT coalesce(sum(used), 0) FROM approvals WHERE dataset_name = :name",
        "approvals": "SELECT count(*) FROM approvals WHERE dataset_name = :name",
        "revocations": "SELECT count(*) FROM approvals WHERE dataset_name = :name AND revoked_at IS NOT NULL",
        "admitted or ended": "SELECT count(*) FROM studies WHERE study_id = :study AND approval_id <> ''",
        "budget answers": "SELECT count(*) FROM answered_calls WHERE request_id = :budget",
        "release answers": "SELECT count(*) FROM answered_calls WHERE request_id = :release",
        "yes answers": "SELECT count(*) FROM answered_calls WHERE request_id IN (:yes, :train)",
        "revoke answers": "SELECT count(*) FROM answered_calls WHERE request_id = :revoke",
    }
    said = {
        "budget.set": "audited budgets",
        "statistics.released": "audited releases",
        "study.admitted": "audited admissions",
        "request.approved": "audited approvals",
        "approval.revoked": "audited revocations",
    }
    ids = {key: f"{key}-{suffix}" for key in ("budget", "release", "yes", "train", "revoke")}
    values = {"name": name, "study": study, **ids}
    with rig.transactions.engine.begin() as connection:
        found = {
            key: int(connection.execute(text(query), values).scalar_one()) for key, query in queries.items()
        }
        for action, key in said.items():
            query = "SELECT count(*) FROM audit_entries WHERE action = :action AND object IN (:d, :r, :s)"
            objects = {"d": f"dataset/{name}", "r": f"request/counts-{suffix}", "s": f"study/{study}"}
            if action in ("request.approved", "approval.revoked"):
                objects["s"] = f"request/{study}"
            row = connection.execute(text(query), {"action": action, **objects})
            found[key] = int(row.scalar_one())
    return found


@pytest.mark.parametrize(
    "database_url", ["sqlite", pytest.param("postgresql", marks=pytest.mark.slow)], indirect=True
)
def test_a_kill_at_any_commit_leaves_one_story_and_the_same_calls_finish_it_once(
    database_url: str, tmp_path: Path, process: Process
) -> None:
    died, commits = process.tell("whole")
    assert (died, commits) == (0, WRITES)
    rig = AccessRig(Transactions(database_url), People(tmp_path / "people"))
    whole = facts(rig, "whole")
    assert set(whole.values()) == {1, 2}
    assert {key for key, count in whole.items() if count == 2} == {
        "uses",
        "approvals",
        "yes answers",
        "audited approvals",
    }
    for number in range(1, commits + 1):
        for phase in ("before", "after"):
            suffix = f"{phase}-{number}"
            assert process.tell(suffix, phase, number)[0] == signal.SIGKILL
            left = facts(rig, suffix)
            assert left["budgets"] == left["budget answers"] == left["audited budgets"], suffix
            assert left["releases"] == left["release answers"] == left["audited releases"], suffix
            assert left["admissions"] == left["admitted or ended"] == left["audited admissions"], suffix
            assert left["uses"] == left["releases"] + left["admissions"], suffix
            assert left["approvals"] == left["yes answers"] == left["audited approvals"], suffix
            assert left["revocations"] == left["revoke answers"] == left["audited revocations"], suffix
            rig.audited()  # verifies the chain
            assert process.tell(suffix)[0] == 0
            assert facts(rig, suffix) == whole, suffix
    rig.audited()
    rig.transactions.close()
