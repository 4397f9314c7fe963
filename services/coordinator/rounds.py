"""Rounds: opened with whoever is there, closed by answers or by the clock, tried again below the quorum.

`advance` does one step from the stored state and returns. It is called again and again (supervisor.py), so a
coordinator that was restarted anywhere goes on from what it stored.
"""

from __future__ import annotations

from collections.abc import Set as AbstractSet
from datetime import datetime, timedelta

from libs.core.clock import Clock
from libs.core.errors import AlreadyExists, FailedPrecondition
from libs.core.ids import new_id
from libs.fl.metrics import METRICS_LENGTH
from libs.fl.model_access import version_readers
from libs.fl.round_rules import compares_releases, max_norm_of, noise_std_of
from libs.fl.strategies import registry
from libs.fl.strategies.alike import ALIKE
from libs.fl.strategies.sampling import sampled
from libs.fl.strategies.strategy import Strategy
from libs.fl.training_plan import TrainingPlan
from libs.mpc.ring import Ring
from libs.runtime.logging import get_logger
from services.coordinator.attachments import Attachments
from services.coordinator.changes import ProgressBoard
from services.coordinator.domain import Round, Study, is_over, release_model_id, training_model_id
from services.coordinator.journal import Journal
from services.coordinator.model_access import use_of
from services.coordinator.ports import Parties, RoundKey, RoundOpening
from services.coordinator.states import RoundEvent, RoundKind, RoundState, TaskStatus

log = get_logger(__name__)

_BETWEEN = (RoundState.COMPLETED, RoundState.ABANDONED, RoundState.STOPPED)
"""States of the last round in which another one, or another attempt, may begin."""

_UNABLE = (TaskStatus.FAILED, TaskStatus.REFUSED)

_LOOK_AGAIN_S = 1.0
"""How often detached hospitals are checked for having been away too long."""


class Rounds:
    """Drives the rounds of all studies."""

    def __init__(
        self,
        *,
        journal: Journal,
        attachments: Attachments,
        parties: Parties,
        board: ProgressBoard,
        clock: Clock,
        round_deadline_s: float,
        quorum_patience_s: float,
        max_attempts: int,
    ) -> None:
        self._journal, self._attachments, self._parties = journal, attachments, parties
        self._board, self._clock = board, clock
        self._deadline_s, self._patience_s, self._max_attempts = (
            round_deadline_s,
            quorum_patience_s,
            max_attempts,
        )
        self._short_since_s: dict[str, float] = {}

    async def advance(self, study: Study, kind: RoundKind, *, seen: int) -> None:
        """One step of the current round, or the next one's beginning; waits when there is none to do.

        Raises FailedPrecondition, in words for the scientist, when the study cannot go on; errors of the
        parties are passed on.
        """
        current = study.current_round
        if current is None or current.state in _BETWEEN:
            await self._begin(study, kind, seen=seen)
        elif current.state is RoundState.OPENING:
            await self._open(study, current)
        elif current.state is RoundState.OPEN:
            await self._wait(study, current, seen=seen)
        else:
            await self._close(study, current)

    async def abandon(self, study: Study) -> None:
        """Let the parties forget the round that was running when the study ended."""
        current = study.current_round
        if current is not None and current.state is not RoundState.COMPLETED:
            await self._parties.abandon_round(round_key(study, current))

    def forget(self, study_id: str) -> None:
        """The study ended."""
        self._short_since_s.pop(study_id, None)
        self._board.clear(study_id)

    async def _begin(self, study: Study, kind: RoundKind, *, seen: int) -> None:
        """Decide who takes part. Waits for approved hospitals unless they have been away for long."""
        approved = {member.hospital for member in study.approved}
        if len(approved) < study.quorum:
            raise FailedPrecondition(
                f"Only {len(approved)} hospitals still approve the training plan, which needs {study.quorum}."
            )
        present = approved & self._attachments.present
        if len(present) < study.quorum:
            await self._await_quorum(study, present=len(present), seen=seen)
            return
        self._short_since_s.pop(study.study_id, None)
        if approved - present - self._attachments.gone(approved):
            await self._journal.feed.wait(study.study_id, seen=seen, timeout_s=_LOOK_AGAIN_S)
            return
        last = study.current_round
        if last is not None and last.state is RoundState.ABANDONED:
            self._check_attempts(study, last)
            await self._parties.abandon_round(round_key(study, last))
        now = self._clock.now()
        chosen = present if kind is RoundKind.RELEASE else participants_of_round(study, present)
        self._board.clear(study.study_id)
        self._journal.update(
            study.study_id,
            lambda study: study.with_round(
                kind,
                chosen,
                strategy=ALIKE if kind is RoundKind.RELEASE else strategy_of(study),
                opened_at=now,
                deadline=self._deadline_of(study),
            ),
        )

    async def _await_quorum(self, study: Study, *, present: int, seen: int) -> None:
        now_s = self._clock.monotonic_s()
        left_s = self._short_since_s.setdefault(study.study_id, now_s) + self._patience_s - now_s
        if left_s <= 0:
            raise FailedPrecondition(
                f"Only {present} of the {study.quorum} hospitals that a round needs were online for "
                f"{self._patience_s:.0f} s. Ask them to start their nodes, then create the study again."
            )
        await self._journal.feed.wait(study.study_id, seen=seen, timeout_s=left_s)

    def _check_attempts(self, study: Study, last: Round) -> None:
        if last.attempt + 1 < self._max_attempts:
            return
        problems = "; ".join(f"{m.hospital_name}: {m.problem}" for m in study.approved if m.problem)
        raise FailedPrecondition(
            f"Round {last.number} got fewer than {study.quorum} complete contributions in each of "
            f"{self._max_attempts} attempts. "
            + (
                f"What hospitals reported: {problems}"
                if problems
                else "No hospital reported a problem; allow more time with round_deadline_s in a new plan."
            )
        )

    async def _open(self, study: Study, current: Round) -> None:
        """Announce the round to the parties; orders go out once it is stored as open."""
        opening = round_opening(study, current)
        try:
            await self._parties.open_round(opening)
        except AlreadyExists:
            # A party knows this round from before a crash in other words. Nobody was asked to contribute to
            # it yet, so forgetting it loses nothing.
            await self._parties.abandon_round(opening.key)
            await self._parties.open_round(opening)
        self._journal.update(
            study.study_id,
            lambda study: study.with_round_opened(
                opened_at=self._clock.now(), deadline=self._deadline_of(study)
            ),
        )
        log.info(
            "round_opened",
            study_id=study.study_id,
            round=current.number,
            attempt=current.attempt,
            hospitals=len(current.participants),
        )

    async def _wait(self, study: Study, current: Round, *, seen: int) -> None:
        """Until enough is known to close: by answers, by absence, or by the clock; or to end training."""
        if current.agreed_stop(quorum=study.quorum):
            # The parties first: a coordinator that is killed in between finds the round open and asks again.
            await self._parties.abandon_round(round_key(study, current))
            self._journal.update(study.study_id, lambda study: study.with_round_event(RoundEvent.STOPPED))
            log.info("training_stopped", study_id=study.study_id, round=current.number)
            return
        gone = self._attachments.gone(participant.hospital for participant in current.participants)
        now = self._clock.now()
        if is_over(current.participants, deadline=current.deadline, now=now, quorum=study.quorum, gone=gone):
            self._journal.update(study.study_id, lambda study: study.with_round_event(RoundEvent.OVER))
            return
        timeout_s = time_to_look_again(
            current.deadline - now,
            detached=bool({p.hospital for p in current.participants} - self._attachments.present),
        )
        await self._journal.feed.wait(study.study_id, seen=seen, timeout_s=timeout_s)

    async def _close(self, study: Study, current: Round) -> None:
        """Let the parties add. A repeated attempt has a new id: no two computations share one."""
        closing = await self._parties.close_round(round_key(study, current), computation_id=new_id("round"))
        survivors = closing.survivors
        sent = sum(participant.status is TaskStatus.DONE for participant in current.participants)
        log.info(
            "round_closed",
            study_id=study.study_id,
            round=current.number,
            attempt=current.attempt,
            sent=sent,
            survivors=None if survivors is None else len(survivors),
            refused=len(closing.refused),
            bytes_between_parties=closing.bytes_between_parties,
        )
        self._board.clear(study.study_id)
        if survivors is None:
            self._journal.update(
                study.study_id,
                lambda study: study.with_refused(closing.refused).with_round_event(RoundEvent.FELL_SHORT),
            )
            return
        self._journal.update(
            study.study_id,
            lambda study: study.with_refused(closing.refused).with_aggregate(
                survivors,
                closed_at=self._clock.now(),
                bytes_between_parties=closing.bytes_between_parties,
            ),
        )

    def _deadline_of(self, study: Study) -> datetime:
        return self._clock.now() + timedelta(seconds=deadline_s(study, limit_s=self._deadline_s))


def deadline_s(study: Study, *, limit_s: float) -> float:
    """Seconds that hospitals have for one task: the plan's, but no more than the coordinator allows."""
    return min(TrainingPlan.from_json(study.plan_json).round_deadline_s, limit_s)


def strategy_of(study: Study) -> Strategy:
    """How much each hospital counts, as the plan says."""
    return registry.strategy_of(TrainingPlan.from_json(study.plan_json))


def participants_of_round(study: Study, present: AbstractSet[str]) -> AbstractSet[str]:
    """Those of `present` that train in the study's next round: all, or as many as the plan samples."""
    plan = TrainingPlan.from_json(study.plan_json)
    last = study.current_round
    again = last is not None and last.state is RoundState.ABANDONED
    unable = [p.hospital for p in last.participants if p.status in _UNABLE] if last and again else []
    return sampled(
        present,
        fraction=plan.client_fraction,
        quorum=study.quorum,
        seed=plan.seed,
        round_number=last.number if last and again else study.rounds_done + 1,
        after=unable,
    )


def time_to_look_again(left: timedelta, *, detached: bool) -> float:
    """Seconds until something may have changed that nobody announces."""
    return min(left.total_seconds(), _LOOK_AGAIN_S) if detached else left.total_seconds()


def round_key(study: Study, current: Round) -> RoundKey:
    """The attempt's name towards the parties."""
    return RoundKey(study.study_id, current.number, current.attempt)


def round_opening(study: Study, current: Round) -> RoundOpening:
    """What the parties are told: a training round adds to the version before, a release stands alone."""
    weights = {participant.hospital: participant.weight for participant in current.participants}
    if current.kind is RoundKind.RELEASE:
        assert study.compiled is not None  # a release round opens only with a compiled plan
        return RoundOpening(
            key=round_key(study, current),
            ring=study.compiled.ring,
            update_length=study.compiled.parameter_length,
            metrics_length=0,
            weights=weights,
            quorum=study.quorum,
            base_model_id="",
            result_model_id=release_model_id(study.study_id),
            readers=(),
            metrics_readers=(),
            plan=study.compiled.json,
            use=use_of(study),
            same=compares_releases(TrainingPlan.from_json(study.plan_json)),
        )
    metrics_readers = (study.creator, *(member.hospital for member in study.approved))
    plan = TrainingPlan.from_json(study.plan_json)
    return RoundOpening(
        key=round_key(study, current),
        ring=Ring.RING_32,
        update_length=study.parameters,
        metrics_length=METRICS_LENGTH,
        weights=weights,
        quorum=study.quorum,
        base_model_id=training_model_id(study.study_id, current.number - 1),
        result_model_id=training_model_id(study.study_id, current.number),
        readers=version_readers(
            plan,
            creator=study.creator,
            hospitals=[member.hospital for member in study.approved],
        ),
        metrics_readers=metrics_readers,
        max_norm=max_norm_of(plan, round_number=current.number),
        noise_std=noise_std_of(plan),
    )
