"""`trefoil audit` on a file: a table for people, and words that point at what is wrong."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
from typer.testing import CliRunner, Result

from libs.cli.main import app
from libs.core.errors import InvalidInput
from libs.rpc.dev_ca import DevelopmentCa
from libs.rpc.identity import COORDINATOR, party_identity
from libs.runtime.audit.entry import Event, Outcome, chain
from tests.fakes.audit import issue, numbered, open_trail


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """With an earlier export, a later one, and the CA."""
    files = issue(DevelopmentCa(), party_identity(0), tmp_path / "keys")
    with open_trail(f"sqlite:///{tmp_path / 'audit.db'}", files) as rig:
        rig.log.record(numbered(3))
        (tmp_path / "earlier.jsonl").write_text("\n".join(rig.exported()))
        event = Event("round.closed", "system", "[red]\x1b[31m", details={"survivors": "alpha beta"})
        rig.log.record([event, *numbered(1)])
        lines = rig.exported()
        (tmp_path / "trail.jsonl").write_text("\n".join(lines))
        (tmp_path / "unsigned.jsonl").write_text("\n".join(lines[:-1]))
    return tmp_path


def audit(*arguments: object) -> Result:
    return CliRunner().invoke(app, ["audit", *map(str, arguments)])


def verify(folder: Path, *arguments: object, file: str = "trail.jsonl") -> Result:
    return audit("verify", folder / file, "--ca", folder / "keys" / "ca.crt", *arguments)


def test_a_whole_trail_is_told_with_its_last_hash(folder: Path) -> None:
    told = verify(folder, "--trail", party_identity(0).uri, "--checkpoint", folder / "earlier.jsonl")
    assert told.exit_code == 0
    head = json.loads((folder / "trail.jsonl").read_text().splitlines()[-1])["head_hash"]
    assert f"Whole: 5 entries of {party_identity(0).uri}" in told.output
    assert head in told.output


def test_what_is_not_yet_signed_is_told(folder: Path) -> None:
    told = verify(folder, file="unsigned.jsonl")
    assert told.exit_code == 0
    assert "2 entries after entry 3 are not yet signed" in told.output
    as_json = json.loads(verify(folder, "--json", file="unsigned.jsonl").output)
    assert (as_json["signed_entries"], as_json["not_yet_signed"]) == (3, 2)


@pytest.mark.parametrize(
    ("change", "options", "problem"),
    [
        (lambda lines: [lines[0].replace("set-0", "set-9"), *lines[1:]], [], "altered"),
        (lambda lines: lines[1:], [], "missing"),
        (lambda lines: [lines[1], lines[0], *lines[2:]], [], "reordered"),
        (lambda lines: [lines[0], *lines], [], "duplicated"),
        (lambda lines: lines[:2], [], "unsigned"),
        (lambda lines: [], [], "empty"),
        (lambda lines: lines[:4], ["--checkpoint", "trail.jsonl"], "cut_off"),
        (lambda lines: lines, ["--trail", COORDINATOR.uri], "other_trail"),
        (lambda lines: lines, ["--head", "0" * 64], "cut_off"),
        (lambda lines: [*lines[:3], lines[3].replace("T", "S", 1), *lines[4:]], [], "bad_signature"),
    ],
)
def test_what_is_wrong_is_named_and_the_exit_code_is_1(
    folder: Path, change: object, options: list[str], problem: str
) -> None:
    lines = (folder / "trail.jsonl").read_text().splitlines()
    (folder / "changed.jsonl").write_text("\n".join(change(lines)))  # type: ignore[operator]
    arguments = [folder / option if option.endswith(".jsonl") else option for option in options]
    told = verify(folder, *arguments, "--json", file="changed.jsonl")
    assert told.exit_code == 1
    assert json.loads(told.output)["finding"]["problem"] == problem
    words = verify(folder, *arguments, file="changed.jsonl")
    assert "is not whole" in words.output


def test_another_ca_is_not_believed(folder: Path) -> None:
    issue(DevelopmentCa(), party_identity(0), folder / "others")
    told = audit("verify", folder / "trail.jsonl", "--ca", folder / "others" / "ca.crt")
    assert told.exit_code == 1
    assert "not issued by this CA" in told.output


def test_a_long_entry_is_shown_in_short(tmp_path: Path) -> None:
    event = Event(
        "request.approved",
        "spiffe://trefoil.local/client/ada (ada)",
        "request/request-1",
        Outcome.REFUSED,
        approval="approval-1",
        details={"plan_hash": "0123456789ab" + "f" * 52, "model": "", "uses": 2},
    )
    entry = chain(None, event, datetime(2026, 11, 24, 9, 30, tzinfo=UTC), trail=COORDINATOR.uri)
    line = json.dumps(entry.to_json(trail=COORDINATOR.uri))
    (tmp_path / "trail.jsonl").write_text(f"{line}\n", encoding="utf-8")
    shown = audit("show", tmp_path / "trail.jsonl").output
    assert "2026-11-24 09:30:00   request.approved (refused)   client/ada " in shown
    for part in ("approval approval-1", "plan_hash 0123456789ab…", "uses 2"):
        assert part in shown
    assert "model" not in shown
    assert "ffff" not in shown


def test_entries_are_shown_and_filtered(folder: Path) -> None:
    shown = audit("show", folder / "trail.jsonl")
    assert "round.closed" in shown.output
    assert "[red]" in shown.output  # as written, not as a colour
    assert "\x1b" not in shown.output
    closed = json.loads(audit("show", folder / "trail.jsonl", "--action", "closed", "--json").output)
    assert [entry["details"] for entry in closed] == [{"survivors": "alpha beta"}]
    by_ada = json.loads(audit("show", folder / "trail.jsonl", "--actor", "ada", "--json").output)
    assert len(by_ada) == 4
    assert audit("show", folder / "trail.jsonl", "--since", "2999-01-01", "--json").output.strip() == "[]"


@pytest.mark.parametrize(
    "arguments", [[], ["--from", "coordinator"], ["trail.jsonl", "--since", "yesterday"], ["keys/ca.crt"]]
)
def test_a_wrong_question_is_answered_with_what_to_ask(
    folder: Path, arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(folder)
    assert isinstance(audit("show", *arguments).exception, InvalidInput)


def test_an_export_never_overwrites(folder: Path) -> None:
    told = audit("export", "--from", "hospital", "--out", folder / "trail.jsonl", "-p", "none.toml")
    assert "exists already" in str(told.exception)
