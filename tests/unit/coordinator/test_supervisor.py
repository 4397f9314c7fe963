"""A database that restarts costs no study; and a failure is written down in the end."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from libs.core.clock import SystemClock
from libs.core.errors import FailedPrecondition, Unavailable
from services.coordinator.adapters.database import Database, open_database
from services.coordinator.adapters.tables import AUDIT
from services.coordinator.attachments import Attachments
from services.coordinator.changes import ChangeFeed
from services.coordinator.domain import Study
from services.coordinator.journal import Journal
from services.coordinator.releases import Releases
from services.coordinator.rounds import Rounds
from services.coordinator.states import RoundKind, StudyState
from services.coordinator.supervisor import Supervisor
from tests.fakes.audit import unsigned_trail
from tests.fakes.studies import training


class FlakyDatabase:
    """A real database whose transactions fail to begin while it is down."""

    def __init__(self, file: Path) -> None:
        self.database: Database = open_database(f"sqlite:///{file}", unsigned_trail(AUDIT))
        self.down, self.refused = False, 0
        sa.event.listen(self.database.engine, "begin", self._begin)

    def _begin(self, _connection: Any) -> None:
        if self.down:
            self.refused += 1
            raise OperationalError("BEGIN", None, Exception("server closed the connection unexpectedly"))

    async def refuses(self) -> None:
        """Return once somebody has met the database while it is down."""
        async with asyncio.timeout(30):
            while not self.refused:  # noqa: ASYNC110 - a counter in a database
                await asyncio.sleep(0.01)


class ScriptedRounds:
    """Does what a test says at each step."""

    def __init__(self) -> None:
        self.steps: asyncio.Queue[Exception | None] = asyncio.Queue()
        self.begun = asyncio.Event()
        self.abandoned = asyncio.Event()

    async def advance(self, study: Study, kind: RoundKind, *, seen: int) -> None:
        self.begun.set()
        error = await self.steps.get()
        if error is not None:
            raise error

    async def abandon(self, study: Study) -> None:
        self.abandoned.set()

    def forget(self, study_id: str) -> None: ...


@pytest.fixture
def flaky(tmp_path: Path) -> FlakyDatabase:
    return FlakyDatabase(tmp_path / "coordinator.db")


@pytest.fixture
async def rounds(flaky: FlakyDatabase) -> Any:
    """Of one supervised study in training."""
    flaky.database.add_study(training())
    clock, rounds = SystemClock(), ScriptedRounds()
    journal = Journal(
        repository=flaky.database,
        attachments=Attachments(clock=clock, reattach_grace_s=1),
        feed=ChangeFeed(),
    )
    supervisor = Supervisor(
        repository=flaky.database,
        journal=journal,
        rounds=cast(Rounds, rounds),
        releases=cast(Releases, None),
        clock=clock,
        party_patience_s=60,
    )
    supervisor.start()
    await rounds.begun.wait()
    yield rounds
    await supervisor.stop()
    flaky.database.close()


def state(flaky: FlakyDatabase) -> StudyState:
    study = flaky.database.study("study-1")
    assert study is not None
    return study.state


async def test_a_study_goes_on_when_the_database_is_back(
    flaky: FlakyDatabase, rounds: ScriptedRounds
) -> None:
    flaky.down = True
    rounds.begun.clear()
    rounds.steps.put_nowait(None)  # the next step begins with reading the study
    await flaky.refuses()
    with pytest.raises(Unavailable, match="database"):
        flaky.database.live_studies()
    flaky.down = False
    await asyncio.wait_for(rounds.begun.wait(), 30)
    assert state(flaky) is StudyState.TRAINING


async def test_a_failure_is_stored_once_the_database_is_back(
    flaky: FlakyDatabase, rounds: ScriptedRounds
) -> None:
    flaky.down = True
    rounds.steps.put_nowait(FailedPrecondition("Not enough hospitals."))
    await flaky.refuses()
    flaky.down = False
    await asyncio.wait_for(rounds.abandoned.wait(), 30)
    assert state(flaky) is StudyState.FAILED
