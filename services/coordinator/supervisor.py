"""One task per living study: look at its stored state, do the next step, look again."""

from __future__ import annotations

import asyncio
import contextvars

from libs.core.clock import Clock
from libs.core.errors import TrefoilError, Unavailable
from libs.runtime.logging import get_logger
from services.coordinator.domain import Study
from services.coordinator.journal import Journal
from services.coordinator.ports import Repository
from services.coordinator.releases import Releases
from services.coordinator.rounds import Rounds
from services.coordinator.states import RoundKind, RoundState, StudyEvent, StudyState

log = get_logger(__name__)

_FIRST_DELAY_S = 0.2
_LONGEST_DELAY_S = 5.0


class Supervisor:
    """Keeps all living studies moving.

    A step that finds a party or the database unavailable is tried again, later and later, for
    `party_patience_s`. Any other error ends the study with the error's public text; a bug ends it with a
    generic one and is logged. That it failed is written down however long that takes.
    """

    def __init__(
        self,
        *,
        repository: Repository,
        journal: Journal,
        rounds: Rounds,
        releases: Releases,
        clock: Clock,
        party_patience_s: float,
    ) -> None:
        self._repository, self._journal = repository, journal
        self._rounds, self._releases = rounds, releases
        self._clock, self._patience_s = clock, party_patience_s
        self._tasks: dict[str, asyncio.Task[None]] = {}

    def start(self) -> None:
        """Go on with every study that was alive when the coordinator stopped."""
        for study in self._repository.live_studies():
            self.supervise(study.study_id)

    def supervise(self, study_id: str) -> None:
        """Keep this study moving until it ends."""
        if study_id not in self._tasks:
            # A context of its own: the study outlives the call that created it, and acts for nobody.
            task = asyncio.create_task(self._run(study_id), name=study_id, context=contextvars.Context())
            self._tasks[study_id] = task
            task.add_done_callback(lambda _done: self._tasks.pop(study_id, None))

    async def stop(self) -> None:
        """Stop all tasks. The studies stay as they are stored."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _run(self, study_id: str) -> None:
        try:
            await self._advance_until_ended(study_id)
        except TrefoilError as error:
            log.warning("study_failed", study_id=study_id, code=error.code, reason=str(error))
            await self._fail_once_possible(study_id, str(error))
        except Exception:
            log.exception("study_crashed", study_id=study_id)
            reason = "The coordinator failed in a way it should not; its log has the details."
            await self._fail_once_possible(study_id, reason)
        self._rounds.forget(study_id)
        try:
            await self._rounds.abandon(self._journal.study(study_id))
        except TrefoilError as error:
            # The round stays open at a party until its operator clears it; nothing can be added to it.
            log.warning("round_not_abandoned", study_id=study_id, code=error.code, reason=str(error))

    async def _advance_until_ended(self, study_id: str) -> None:
        trouble_since_s: float | None = None
        delay_s = _FIRST_DELAY_S
        while True:
            seen = self._journal.feed.version(study_id)
            try:
                study = self._journal.study(study_id)
                if study.ended:
                    return
                await self._advance(study, seen=seen)
            except Unavailable as error:
                now_s = self._clock.monotonic_s()
                trouble_since_s = now_s if trouble_since_s is None else trouble_since_s
                if now_s - trouble_since_s >= self._patience_s:
                    raise
                log.warning(
                    "step_delayed", study_id=study_id, code=error.code, reason=str(error), delay_s=delay_s
                )
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
            else:
                trouble_since_s, delay_s = None, _FIRST_DELAY_S

    async def _advance(self, study: Study, *, seen: int) -> None:
        """One step, chosen by the state alone."""
        if study.state in (StudyState.CREATED, StudyState.AWAITING_APPROVAL):
            await self._await_approval(study, seen=seen)
        elif study.state is StudyState.CALIBRATING:
            await self._releases.calibrate(study, seen=seen)
        elif study.state is StudyState.RELEASING:
            last = study.rounds[-1]
            if last.kind is RoundKind.RELEASE and last.state is RoundState.COMPLETED:
                self._releases.finish(study)
            else:
                await self._rounds.advance(study, RoundKind.RELEASE, seen=seen)
        elif study.final_round:
            self._releases.begin(study)
        else:
            await self._rounds.advance(study, RoundKind.TRAIN, seen=seen)

    async def _await_approval(self, study: Study, *, seen: int) -> None:
        if study.short_of_hospitals:
            self._fail(study.study_id, study.short_of_hospitals)
        elif study.decided and study.state is StudyState.AWAITING_APPROVAL:
            self._journal.update(study.study_id, lambda study: study.after(StudyEvent.APPROVED))
        else:
            await self._journal.feed.wait(study.study_id, seen=seen)

    async def _fail_once_possible(self, study_id: str, reason: str) -> None:
        """A study whose failure is not stored would look alive for ever."""
        delay_s = _FIRST_DELAY_S
        while True:
            try:
                self._fail(study_id, reason)
            except Unavailable as error:
                log.warning("failure_not_stored", study_id=study_id, reason=str(error), delay_s=delay_s)
                await asyncio.sleep(delay_s)
                delay_s = min(2 * delay_s, _LONGEST_DELAY_S)
            else:
                return

    def _fail(self, study_id: str, reason: str) -> None:
        self._journal.update(study_id, lambda study: study.with_failure(reason))
