"""Ledgers and trails at the end of a demo: what a person reads, and what makes the demo fail."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from pathlib import Path

import pytest
from rich.console import Console

from libs.cli.demo import staff
from libs.cli.demo.record_tables import LEDGER_COLUMNS, TRAIL_COLUMNS, ledger_rows, print_records, trail_rows
from libs.cli.demo.records import Records, require_whole
from libs.core.errors import DeadlineExceeded, PeerViolation
from libs.rpc.dev_ca import DevelopmentCa
from libs.rpc.identity import party_identity
from libs.rpc.signing import checkpoint_check
from libs.runtime.audit.findings import Finding, Problem
from libs.runtime.audit.verify import verify_trail
from tests.fakes.audit import issue, numbered, open_trail
from tests.fakes.demo_records import made_records


def test_every_entry_of_every_ledger_is_a_row_that_says_who_took_what_under_which_approval() -> None:
    rows = ledger_rows(made_records())
    assert rows == [
        ["north", "1", "budget set", "", "without privacy", "", "", ""],
        ["north", "2", "training", "client/scientist", "ε 0.5, δ 0.00001", "1", "", "approval-<1>"],
        ["north", "3", "predictions", "client/clinic", "ε 0", "", "40", ""],
        ["east", "1", "budget set", "", "without privacy", "", "", ""],
    ]
    assert {len(row) for row in rows} == {len(LEDGER_COLUMNS)}


def _one_not_whole() -> Records:
    records = made_records()
    finding = Finding(Problem.ALTERED, 3, 3, "Entry 3 was altered.")
    altered = replace(records.trails["party-0"], entries=2, signed_sequence=1, finding=finding)
    return replace(records, trails={**records.trails, "party-0": altered})


def test_a_trail_that_is_not_whole_is_not_called_whole() -> None:
    rows = trail_rows(_one_not_whole())
    assert rows == [["coordinator", "12", "12", "whole"], ["party-0", "2", "1", "NOT WHOLE"]]
    assert {len(row) for row in rows} == {len(TRAIL_COLUMNS)}


def test_both_tables_are_printed_with_their_titles() -> None:
    screen = io.StringIO()
    print_records(Console(file=screen, width=160), _one_not_whole())
    printed = screen.getvalue()
    assert printed.index("Privacy ledgers") < printed.index("approval-<1>") < printed.index("Audit trails")
    assert printed.index("Audit trails") < printed.index("NOT WHOLE")


def test_the_demo_fails_at_a_trail_in_which_an_entry_was_changed(tmp_path: Path) -> None:
    files = issue(DevelopmentCa(), party_identity(0), tmp_path / "keys")
    with open_trail(f"sqlite:///{tmp_path / 'audit.db'}", files) as rig:
        rig.log.record(numbered(3))
        lines, check = rig.exported(), checkpoint_check(rig.authorities)
    whole = verify_trail(lines, check_signature=check)
    assert require_whole("party-0", whole) is whole
    changed = {**json.loads(lines[1]), "outcome": "done, they say"}
    report = verify_trail([lines[0], json.dumps(changed), *lines[2:]], check_signature=check)
    with pytest.raises(PeerViolation, match=r"entry 2 .* altered") as raised:
        require_whole("party-0", report)
    assert "party-0" in str(raised.value)


async def test_what_never_happens_is_waited_for_only_so_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(staff, "WAIT_S", 0.3)
    looks = iter([None, None, "found"])

    async def look() -> str | None:
        return next(looks, None)

    assert await staff.until(look, "Nothing came") == "found"
    with pytest.raises(DeadlineExceeded, match="Nothing came"):
        await staff.until(look, "Nothing came")
