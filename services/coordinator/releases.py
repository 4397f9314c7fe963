"""From trained weights to a model that can be asked: bounds, a compiled plan, one more round.

The coordinator compiles from the architecture and from power-of-two bounds. It never holds a weight: the
hospitals encode the weights themselves and contribute them under shares.
"""

from __future__ import annotations

from datetime import timedelta

from libs.core.clock import Clock
from libs.core.errors import FailedPrecondition
from libs.fl.training_plan import TrainingPlan
from libs.runtime.logging import get_logger
from services.coordinator.attachments import Attachments
from services.coordinator.domain import Study, is_over, release_model_id
from services.coordinator.journal import Journal
from services.coordinator.model_access import use_of
from services.coordinator.ports import Compiler, Model, Repository
from services.coordinator.rounds import deadline_s, time_to_look_again
from services.coordinator.states import RoundState, StudyEvent

log = get_logger(__name__)


class Releases:
    """Drives the end of every study."""

    def __init__(
        self,
        *,
        journal: Journal,
        repository: Repository,
        attachments: Attachments,
        compiler: Compiler,
        clock: Clock,
        round_deadline_s: float,
    ) -> None:
        self._journal, self._repository, self._attachments = journal, repository, attachments
        self._compiler, self._clock, self._deadline_s = compiler, clock, round_deadline_s

    def begin(self, study: Study) -> None:
        """Ask the survivors of the last round for bounds; they have shown that they are there and able."""
        survivors = next(r.survivors for r in reversed(study.rounds) if r.state is RoundState.COMPLETED)
        allowed = {member.hospital for member in study.approved}
        deadline = self._clock.now() + timedelta(seconds=deadline_s(study, limit_s=self._deadline_s))
        asked = tuple(hospital for hospital in survivors if hospital in allowed)
        self._journal.update(study.study_id, lambda study: study.with_calibration(asked, deadline=deadline))

    async def calibrate(self, study: Study, *, seen: int) -> None:
        """Wait for bounds; compile once they are in.

        Raises FailedPrecondition below the quorum, UnsupportedModel when the model cannot be asked.
        """
        assert study.calibration is not None  # CALIBRATING is entered with one
        calibrators = study.calibration.calibrators
        deadline, now = study.calibration.deadline, self._clock.now()
        gone = self._attachments.gone(calibrator.hospital for calibrator in calibrators)
        if not is_over(calibrators, deadline=deadline, now=now, quorum=study.quorum, gone=gone):
            detached = bool({c.hospital for c in calibrators} - self._attachments.present)
            timeout_s = time_to_look_again(deadline - now, detached=detached)
            await self._journal.feed.wait(study.study_id, seen=seen, timeout_s=timeout_s)
            return
        bounds = [calibrator.bounds for calibrator in calibrators if calibrator.bounds is not None]
        if len(bounds) < study.quorum:
            raise FailedPrecondition(
                f"Only {len(bounds)} of the {study.quorum} hospitals that the plan needs could calibrate "
                f"the trained model. Its weights are kept as {study.final_model_id}; see what each reported."
            )
        compiled = await self._compiler.compile(TrainingPlan.from_json(study.plan_json), bounds)
        log.info("plan_compiled", study_id=study.study_id, plan_hash=compiled.hash, calibrations=len(bounds))
        self._journal.update(study.study_id, lambda study: study.with_compiled(compiled))

    def finish(self, study: Study) -> None:
        """The release round is complete: the model can be asked."""
        assert study.compiled is not None  # RELEASING is entered with one
        self._repository.add_model(
            Model(
                model_id=release_model_id(study.study_id),
                name=study.title,
                plan=study.compiled.json,
                plan_hash=study.compiled.hash,
                owner=study.created_by,
                created_at=self._clock.now(),
                ready=True,
                use=use_of(study),
            )
        )
        self._journal.update(study.study_id, lambda study: study.after(StudyEvent.RELEASED))
