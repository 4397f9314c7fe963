"""Whatever single change is made to an exported trail, verification finds it and points at its place."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from libs.rpc.dev_ca import DevelopmentCa
from libs.rpc.identity import party_identity
from libs.rpc.signing import TlsSigner, checkpoint_check
from libs.runtime.audit.checkpoint import Checkpoint
from libs.runtime.audit.entry import entry_hash
from libs.runtime.audit.findings import Problem, Report
from libs.runtime.audit.verify import verify_trail
from tests.fakes.audit import issue, numbered, open_trail

ENTRIES = 230
HASHES = ("hash", "previous_hash", "head_hash")


class Trail:
    """Exported lines, and a verification of changed ones."""

    def __init__(self, folder: Path) -> None:
        self.ca = DevelopmentCa()
        self.files = issue(self.ca, party_identity(0), folder / "keys")
        with open_trail(f"sqlite:///{folder / 'audit.db'}", self.files) as rig:
            for event in numbered(ENTRIES):
                rig.log.record([event])
            self.lines = rig.exported()
            self._check = checkpoint_check(rig.authorities)
        self.at = {}
        for number, line in enumerate(self.lines, start=1):
            value = json.loads(line)
            if value["kind"] == "entry":
                self.at[number] = value["sequence"]
        self.last = Checkpoint.from_json(json.loads(self.lines[-1]))

    def verify(self, lines: list[str], **known: Any) -> Report:
        return verify_trail(lines, check_signature=self._check, **known)

    def problem(self, lines: list[str], **known: Any) -> tuple[Problem, int, int]:
        finding = self.verify(lines, **known).finding
        assert finding is not None, "the change was not found"
        return finding.problem, finding.line, finding.sequence


@pytest.fixture(scope="module")
def trail(tmp_path_factory: pytest.TempPathFactory) -> Trail:
    return Trail(tmp_path_factory.mktemp("trail"))


LINES = ENTRIES + 3  # checkpoints after 100, 200 and 230
many = settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
any_line = st.integers(1, LINES)


def test_an_untouched_trail_is_whole(trail: Trail) -> None:
    report = trail.verify(trail.lines, trail=party_identity(0).uri, known_checkpoint=trail.last)
    assert report.finding is None
    assert len(trail.lines) == LINES
    assert (report.entries, report.checkpoints, report.not_yet_signed) == (ENTRIES, 3, 0)
    assert report.head_hash == trail.last.head_hash


@many
@given(any_line, st.data())
def test_an_altered_field_is_found_where_it_is(trail: Trail, number: int, data: st.DataObject) -> None:
    value = json.loads(trail.lines[number - 1])
    field = data.draw(st.sampled_from(sorted(value)))
    old = value[field]
    value[field] = data.draw(_other(old, like_a_hash=field in HASHES))
    changed = _with(trail.lines, number, json.dumps(value))
    problem, line, sequence = trail.problem(changed)
    assert line == number
    assert problem in {Problem.ALTERED, Problem.BAD_SIGNATURE, Problem.OTHER_TRAIL}
    if number in trail.at:
        assert (problem, sequence) == (Problem.ALTERED, trail.at[number])


@many
@given(any_line.filter(lambda number: number < LINES - 1), st.data())
def test_an_entry_with_a_new_hash_is_found_by_the_next_line(
    trail: Trail, number: int, data: st.DataObject
) -> None:
    value = json.loads(trail.lines[number - 1])
    if value["kind"] != "entry":
        return
    value["actor"] = data.draw(st.text(min_size=1, max_size=20))
    value["hash"] = entry_hash(value)
    changed = _with(trail.lines, number, json.dumps(value))
    problem, line, sequence = trail.problem(changed)
    if number + 1 in trail.at:
        assert (problem, line, sequence) == (Problem.ALTERED, number, trail.at[number])
    else:  # the last one before a checkpoint, which signed another hash
        assert (problem, line) == (Problem.ALTERED, number + 1)


@many
@given(any_line.filter(lambda number: number < LINES))
def test_a_dropped_line_is_found_where_it_was(trail: Trail, number: int) -> None:
    problem, line, sequence = trail.problem(trail.lines[: number - 1] + trail.lines[number:])
    if number in trail.at:
        assert (problem, line, sequence) == (Problem.MISSING, number, trail.at[number])
    else:
        assert problem is Problem.MISSING  # of a checkpoint, and the next one shows it
        assert line > number


@many
@given(any_line, any_line)
def test_a_doubled_line_is_found_where_it_stands(trail: Trail, number: int, after: int) -> None:
    changed = [*trail.lines[:after], trail.lines[number - 1], *trail.lines[after:]]
    problem, line, sequence = trail.problem(changed)
    if number in trail.at and after >= number:
        assert (problem, line, sequence) == (Problem.DUPLICATED, after + 1, trail.at[number])
    elif number in trail.at and after + 1 < number:
        assert (problem, line) == (Problem.REORDERED, after + 1)
    else:
        assert problem in {Problem.DUPLICATED, Problem.REORDERED}
        assert line in {after + 1, number + 1}


@many
@given(any_line, any_line)
def test_swapped_lines_are_found_at_the_first_of_them(trail: Trail, one: int, other: int) -> None:
    first, second = sorted((one, other))
    if first == second:
        return
    changed = list(trail.lines)
    changed[first - 1], changed[second - 1] = changed[second - 1], changed[first - 1]
    problem, line, sequence = trail.problem(changed)
    if first in trail.at and (second in trail.at or second - first > 1):
        assert (problem, line) == (Problem.REORDERED, first)
    if first in trail.at and second in trail.at:
        assert sequence == trail.at[first]
    assert problem is Problem.REORDERED
    # A checkpoint that stands too late shows at the line that took its place, or at the next checkpoint.
    assert first <= line


@many
@given(any_line, st.booleans(), st.data())
def test_a_line_put_in_is_found_where_it_stands(
    trail: Trail, before: int, chained: bool, data: st.DataObject
) -> None:
    """A made-up entry, with a hash that fits to it, and, if `chained`, to the entry before it."""
    made_up = json.loads(trail.lines[0]) | {"actor": data.draw(st.text(min_size=1, max_size=20))}
    previous = [json.loads(line) for line in trail.lines[: before - 1] if '"kind": "entry"' in line]
    made_up["sequence"] = len(previous) + 1
    if chained and previous:
        made_up["previous_hash"] = previous[-1]["hash"]
    made_up["hash"] = entry_hash(made_up)
    changed = [*trail.lines[: before - 1], json.dumps(made_up), *trail.lines[before - 1 :]]
    problem, line, _sequence = trail.problem(changed)
    assert problem in {Problem.INSERTED, Problem.ALTERED, Problem.REORDERED}
    if before in trail.at:
        assert (problem, line) == (Problem.INSERTED, before)
    else:
        assert line in {before, before + 1}


@many
@given(st.integers(1, LINES - 2))
def test_a_cut_tail_is_found_by_an_earlier_checkpoint(trail: Trail, kept: int) -> None:
    problem, _line, sequence = trail.problem(trail.lines[:kept], known_checkpoint=trail.last)
    entries = sum(number in trail.at for number in range(1, kept + 1))
    assert (problem, sequence) == (Problem.CUT_OFF, entries + 1)


@many
@given(st.integers(1, LINES - 2))
def test_a_cut_tail_is_found_by_a_known_hash(trail: Trail, kept: int) -> None:
    entries = sum(number in trail.at for number in range(1, kept + 1))
    problem, _line, sequence = trail.problem(trail.lines[:kept], known_head=trail.last.head_hash)
    assert (problem, sequence) == (Problem.CUT_OFF, entries + 1)


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=5,
)


@many
@given(any_line, st.data())
def test_whatever_a_field_holds_is_found_and_breaks_nothing(
    trail: Trail, number: int, data: st.DataObject
) -> None:
    value = json.loads(trail.lines[number - 1])
    field = data.draw(st.sampled_from([*sorted(value), "one more"]))
    new = data.draw(json_values.filter(lambda new: new != value.get(field) or type(new) is bool))
    changed = _with(trail.lines, number, json.dumps(value | {field: new}))
    assert trail.problem(changed)[1] == number


@pytest.mark.parametrize(
    "line",
    [
        "nonsense",
        "[]",
        "1e999",
        '{"kind": "checkpoint"}',
        '{"kind": "entry"}',
        "[" * 100_000,
        '{"a": ' * 100_000,
        "9" * 10_000,
        "\x00",
        '{"kind": "entry", "kind": "entry"}',
    ],
)
def test_what_is_no_line_of_a_trail_is_found_and_breaks_nothing(trail: Trail, line: str) -> None:
    assert trail.problem(_with(trail.lines, 7, line))[:2] == (Problem.ALTERED, 7)


def test_a_field_that_stands_twice_is_found(trail: Trail) -> None:
    """Other readers may believe the other one."""
    doubled = trail.lines[6].replace('"actor":', '"actor": "somebody else", "actor":')
    assert trail.problem(_with(trail.lines, 7, doubled))[:2] == (Problem.ALTERED, 7)
    huge = trail.lines[6].replace('"images": 6', '"images": 1e999')
    assert huge != trail.lines[6]
    assert trail.problem(_with(trail.lines, 7, huge))[:2] == (Problem.ALTERED, 7)


def test_a_checkpoint_with_one_more_field_is_found(trail: Trail) -> None:
    """What is not signed must not stand there as if it were."""
    more = json.dumps(json.loads(trail.lines[-1]) | {"approved_by": "everybody"})
    assert trail.problem(_with(trail.lines, LINES, more))[:2] == (Problem.ALTERED, LINES)


def test_a_checkpoint_of_another_service_is_not_believed(trail: Trail, tmp_path: Path) -> None:
    """Signed under the same CA, by a party that wants the others' past to be another one."""
    forged = Checkpoint.sign(
        trail=party_identity(0).uri,
        number=3,
        sequence=trail.last.sequence,
        head_hash=trail.last.head_hash,
        at=datetime.now(UTC),
        signer=TlsSigner(issue(trail.ca, party_identity(1), tmp_path / "party-1")),
    )
    changed = [*trail.lines[:-1], json.dumps(forged.to_json())]
    assert trail.problem(changed)[:2] == (Problem.BAD_SIGNATURE, LINES)
    assert trail.problem(trail.lines, known_checkpoint=forged)[0] is Problem.BAD_SIGNATURE
    named = replace(trail.last, trail=party_identity(1).uri)
    assert trail.problem(trail.lines, known_checkpoint=named)[0] is Problem.OTHER_TRAIL


def test_a_trail_that_went_another_way_contradicts_a_known_checkpoint(trail: Trail, tmp_path: Path) -> None:
    """The service itself began anew: whole and signed, and not what it signed before."""
    with open_trail(f"sqlite:///{tmp_path / 'anew.db'}", trail.files) as rig:
        rig.log.record(numbered(ENTRIES + 1))
        anew = rig.exported()
    assert trail.verify(anew).finding is None
    assert trail.problem(anew, known_checkpoint=trail.last)[::2] == (Problem.ALTERED, ENTRIES)


def _with(lines: list[str], number: int, line: str) -> list[str]:
    return [*lines[: number - 1], line, *lines[number:]]


def _other(old: Any, *, like_a_hash: bool) -> st.SearchStrategy[Any]:
    """Another value of the same kind."""
    if like_a_hash:
        new: st.SearchStrategy[Any] = st.binary(min_size=32, max_size=32).map(bytes.hex)
    elif isinstance(old, int):
        new = st.integers(-5, ENTRIES + 5)
    elif isinstance(old, dict):
        new = st.dictionaries(st.sampled_from(["images", "other"]), st.integers(), max_size=2)
    elif isinstance(old, list):
        new = st.just([])
    else:
        new = st.text(max_size=20)
    return new.filter(lambda value: value != old)
