"""Progress bars of a study: one for the rounds, one for each hospital in the current round."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import TYPE_CHECKING

from rich.console import Console
from rich.progress import BarColumn, Progress, TaskID, TextColumn, TimeElapsedColumn

from libs.cli.client.studies import PHASE_NAMES, STATE_NAMES
from libs.cli.output import plain
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.coordinator.v1.coordinator_pb2 import Study, StudyMember


class StudyProgress:
    """Draws what WatchStudy tells.

    On a terminal the bars move; elsewhere there is one line per finished round.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._progress = Progress(
            TextColumn("{task.description}", justify="left"),
            BarColumn(bar_width=28),
            TextColumn("{task.fields[status]}", style="dim"),
            TimeElapsedColumn(),
            console=console,
            transient=False,
            disable=not console.is_terminal,
        )
        self._study: TaskID | None = None
        self._members: dict[str, TaskID] = {}
        self._rounds_told = 0

    async def follow(self, states: AsyncIterator[Study]) -> Study:
        """Draw every state; returns the last one, at which the study has ended."""
        last: Study | None = None
        with self._progress:
            async for last in states:
                self._draw(last)
        if last is None:
            raise RuntimeError("the coordinator's stream of states was empty")
        return last

    def _draw(self, study: Study) -> None:
        if self._study is None:
            self._study = self._progress.add_task("[bold]rounds[/]", total=study.rounds_planned, status="")
        state = STATE_NAMES.get(study.state, "?")
        status = f"{study.rounds_done} of {study.rounds_planned} · {state}"
        self._progress.update(self._study, completed=study.rounds_done, status=status)
        for member in study.members:
            self._draw_member(study, member)
        if not self._console.is_terminal and study.rounds_done > self._rounds_told:
            self._rounds_told = study.rounds_done
            self._console.print(f"  round {study.rounds_done} of {study.rounds_planned} done")

    def _draw_member(self, study: Study, member: StudyMember) -> None:
        name = member.hospital_name
        if name not in self._members:
            self._members[name] = self._progress.add_task(f"  {plain(name)}", total=1.0, status="")
        self._progress.update(
            self._members[name], completed=_fraction(study, member), status=_status(study, member)
        )


def _fraction(study: Study, member: StudyMember) -> float:
    if study.state == coordinator_pb2.STUDY_STATE_READY:
        return 1.0
    # Training is nearly all of a round's time; the bar shows that phase and stays full while shares are sent.
    if member.phase == coordinator_pb2.PHASE_SENDING:
        return 1.0
    return member.fraction if member.phase != coordinator_pb2.PHASE_FETCHING else 0.0


def _status(study: Study, member: StudyMember) -> str:
    if member.problem:
        return f"[red]{plain(member.problem)}[/]"
    if member.decision == coordinator_pb2.DECISION_PENDING:
        return "has not decided yet"
    if member.decision == coordinator_pb2.DECISION_DENIED:
        return "denied the plan"
    if study.state == coordinator_pb2.STUDY_STATE_READY:
        return f"{member.images} images" if member.images else "images withheld"
    return PHASE_NAMES.get(member.phase, "waiting")
