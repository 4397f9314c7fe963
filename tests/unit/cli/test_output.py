"""What others wrote is shown as they wrote it, and changes nothing about the terminal."""

from __future__ import annotations

import io
from collections.abc import AsyncIterator

import pytest
from rich.console import Console

from libs.cli.output import plain, print_table
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
