"""What hospitals say on their streams. What makes no sense is logged and changes nothing."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any

from libs.core.clock import Clock
from libs.core.errors import CallerError, InvalidInput
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc.identity import Identity
from libs.runtime.logging import get_logger
from services.coordinator.access import AccessRequests
from services.coordinator.attachments import Attachments
from services.coordinator.catalogue import Catalogue
from services.coordinator.changes import Phase, Progress, ProgressBoard
from services.coordinator.descriptions import checked_text
from services.coordinator.journal import Journal
from services.coordinator.states import StudyState, TaskStatus

log = get_logger(__name__)

MAX_BOUNDS = 4096
MAX_BOUND_BITS = 64
MAX_PROBLEM = 2000

_PHASES = {coordinator_pb2.Phase.Value(f"PHASE_{phase.name}"): phase for phase in Phase}


class HospitalEvents:
    """Applies events. The hospital is the certificate's, so it can only ever speak for itself."""

    def __init__(
        self,
        *,
        catalogue: Catalogue,
        access: AccessRequests,
        journal: Journal,
        board: ProgressBoard,
        attachments: Attachments,
        clock: Clock,
    ) -> None:
        self._access, self._clock = access, clock
        self._catalogue, self._journal, self._board = catalogue, journal, board
        self._attachments = attachments
        self._handlers: Mapping[str, Callable[[Identity, Any], None]] = MappingProxyType(
            {
                "hello": self._hello,
                "dataset_published": self._dataset_published,
                "dataset_withdrawn": self._dataset_withdrawn,
                "plan_decision": self._plan_decision,
                "progress": self._progress,
                "contribution_sent": self._contribution_sent,
                "stop_proposed": self._stop_proposed,
                "calibration": self._calibration,
                "task_failed": self._task_failed,
                "heartbeat": self._heartbeat,
                "access_decision": self._access_decision,
            }
        )

    def apply(self, hospital: Identity, event: coordinator_pb2.HospitalEvent) -> None:
        """Let one event take effect. One that is wrong or late is refused alone: the stream and the
        hospital's other work go on.
        """
        self._attachments.touch(hospital.uri)
        kind = event.WhichOneof("event")
        if kind is None:
            return
        try:
            self._handlers[kind](hospital, getattr(event, kind))
        except CallerError as error:
            log.warning("hospital_event_refused", hospital=hospital.uri, kind=kind, reason=str(error))

    def _hello(self, hospital: Identity, hello: coordinator_pb2.HospitalHello) -> None:
        self._catalogue.greet(hospital, name=hello.name, version=hello.version)

    def _heartbeat(self, hospital: Identity, _heartbeat: coordinator_pb2.Heartbeat) -> None:
        """Being heard of is all there is to it."""

    def _dataset_published(self, hospital: Identity, dataset: coordinator_pb2.Dataset) -> None:
        self._catalogue.publish(hospital, dataset, now=self._clock.now())
        log.info("dataset_published", hospital=hospital.uri, dataset_name=dataset.name)

    def _dataset_withdrawn(self, hospital: Identity, withdrawn: coordinator_pb2.DatasetWithdrawn) -> None:
        self._catalogue.withdraw(hospital, name=withdrawn.name)
        log.info("dataset_withdrawn", hospital=hospital.uri, dataset_name=withdrawn.name)

    def _access_decision(self, hospital: Identity, decision: coordinator_pb2.AccessDecision) -> None:
        self._access.decided(hospital, decision)

    def _plan_decision(self, hospital: Identity, decision: coordinator_pb2.PlanDecision) -> None:
        study = self._journal.study(decision.study_id)
        if decision.plan_hash != study.plan_hash:
            raise InvalidInput(f"The decision names another plan than that of study {study.study_id}.")
        reason = checked_text("reason", decision.reason, limit=MAX_PROBLEM, empty=True)
        self._journal.update(
            study.study_id,
            lambda study: study.with_decision(hospital.uri, approved=decision.approved, reason=reason),
        )
        log.info(
            "plan_decided", hospital=hospital.uri, study_id=study.study_id, approved=bool(decision.approved)
        )

    def _progress(self, hospital: Identity, progress: coordinator_pb2.TrainingProgress) -> None:
        phase = _PHASES.get(progress.phase)
        study = self._journal.study(progress.study_id)
        if phase is None or study.ended or study.member(hospital.uri) is None:
            raise InvalidInput("The progress names no phase, or no study that this hospital works for.")
        fraction = min(max(progress.fraction, 0.0), 1.0)
        if math.isnan(fraction):
            raise InvalidInput("The progress is not a number.")
        self._board.set(study.study_id, hospital.uri, Progress(phase, fraction))
        self._journal.feed.publish(study.study_id)

    def _contribution_sent(self, hospital: Identity, sent: coordinator_pb2.ContributionSent) -> None:
        self._journal.update(
            sent.study_id,
            lambda study: study.with_task(
                hospital.uri, number=sent.round, attempt=sent.attempt, status=TaskStatus.DONE
            ),
        )

    def _stop_proposed(self, hospital: Identity, proposed: coordinator_pb2.StopProposed) -> None:
        self._journal.update(
            proposed.study_id,
            lambda study: study.with_stop(
                hospital.uri,
                number=proposed.round,
                attempt=proposed.attempt,
                best_round=proposed.best_round,
            ),
        )

    def _calibration(self, hospital: Identity, report: coordinator_pb2.CalibrationReport) -> None:
        bounds = dict(report.bound_bits)
        if not 0 < len(bounds) <= MAX_BOUNDS or any(abs(b) > MAX_BOUND_BITS for b in bounds.values()):
            raise InvalidInput(
                f"A calibration has 1 to {MAX_BOUNDS} bounds of at most {MAX_BOUND_BITS} bits either way."
            )
        self._journal.update(report.study_id, lambda study: study.with_bounds(hospital.uri, bounds))

    def _task_failed(self, hospital: Identity, failed: coordinator_pb2.TaskFailed) -> None:
        problem = checked_text("problem", failed.message, limit=MAX_PROBLEM, empty=True) or failed.code
        study = self._journal.study(failed.study_id)
        log.warning(
            "hospital_task_failed",
            hospital=hospital.uri,
            study_id=study.study_id,
            round=failed.round,
            code=failed.code,
        )
        if study.state is StudyState.CALIBRATING:
            self._journal.update(
                study.study_id,
                lambda study: study.with_bounds(hospital.uri, None).with_problem(hospital.uri, problem),
            )
            return
        self._journal.update(
            study.study_id,
            lambda study: study.with_task(
                hospital.uri, number=failed.round, attempt=failed.attempt, status=TaskStatus.FAILED
            ).with_problem(hospital.uri, problem),
        )
