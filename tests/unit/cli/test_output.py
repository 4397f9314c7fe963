"""What others wrote is shown as they wrote it, and changes nothing about the terminal."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator
from datetime import UTC, datetime

import pytest
from rich.console import Console

from libs.cli.output import human_moment, make_table, plain, print_table, short_identity
from libs.cli.study_progress import StudyProgress
from libs.cli.study_views import print_study
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2

NASTY = "[red]x[/] [/nothing] [link=http://evil]"


def _study() -> coordinator_pb2.Study:
    member = coordinator_pb2.StudyMember(hospital_name=NASTY, problem=NASTY, dataset_id=NASTY)
    return coordinator_pb2.Study(study_id="s", title=NASTY, failure=NASTY, members=[member])


def test_a_study_shows_texts_of_others_as_they_are(capsys: pytest.CaptureFixture[str]) -> None:
    print_study(_study())
    shown = capsys.readouterr().out
    assert shown.count("[red]x[/]") == 5
    assert shown.count("[/nothing]") == 5


async def test_progress_shows_texts_of_others_as_they_are() -> None:
    async def states() -> AsyncIterator[coordinator_pb2.Study]:
        yield _study()

    console = Console(file=io.StringIO(), force_terminal=True, width=200, color_system=None)
    await StudyProgress(console).follow(states())
    assert isinstance(console.file, io.StringIO)
    assert console.file.getvalue().count("[/nothing]") >= 2


def test_an_empty_list_quotes_what_was_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    print_table(["a"], [], if_empty=f"No data set with {NASTY}.")
    assert NASTY in capsys.readouterr().err


def test_control_characters_of_others_do_not_reach_the_terminal() -> None:
    assert (
        plain("a\x1b[2Jb\x9bc\rd\ne")
        == "a\N{REPLACEMENT CHARACTER}[2Jb\N{REPLACEMENT CHARACTER}c\N{REPLACEMENT CHARACTER}d\ne"
    )


@pytest.mark.parametrize(
    "moment",
    [
        "2026-11-24T23:26:43.708652Z",
        "2026-11-24T23:26:43Z",
        "2026-11-25T00:26:43+01:00",
        datetime(2026, 11, 24, 23, 26),  # noqa: DTZ001 - as protobuf gives it
        datetime(2026, 11, 24, 23, 26, tzinfo=UTC),
    ],
    ids=str,
)
def test_a_moment_is_shown_to_the_minute_in_utc(moment: datetime | str) -> None:
    assert human_moment(moment) == "2026-11-24 23:26 UTC"


@pytest.mark.parametrize(
    ("identity", "shown"),
    [
        ("spiffe://trefoil.local/client/ada (ada)", "client/ada"),
        ("spiffe://trefoil.local/client/ada (bob)", "client/ada (bob)"),
        ("spiffe://trefoil.local/coordinator", "coordinator"),
        ("spiffe://elsewhere/client/ada (ada)", "spiffe://elsewhere/client/ada (ada)"),
        ("study/study-1", "study/study-1"),
    ],
)
def test_an_identity_is_shortened_only_where_nothing_is_lost(identity: str, shown: str) -> None:
    assert short_identity(identity) == shown


def test_what_people_copy_is_never_broken_into_lines() -> None:
    console = Console(file=io.StringIO(), width=100, color_system=None)
    console.print(
        make_table(["hospital", "!key", "by", "why"], [["north", "f" * 64, "operator", "words " * 9]])
    )
    assert isinstance(console.file, io.StringIO)
    assert "f" * 64 in console.file.getvalue()
