"""Studies and their rounds: what may follow what, as tables, and nothing about wires, files or time.

Everything here is frozen. A method gives the next study or raises; a transition that is not in a table raises
IllegalTransition, so no order of messages, timers and restarts can write an illegal state.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime
from fractions import Fraction
from typing import Protocol

from libs.fl.strategies.strategy import Weighing
from libs.fl.strategies.withheld import counted
from libs.mpc.ring import Ring
from services.coordinator.states import (
    DECISION_TRANSITIONS,
    ENDED,
    ROUND_TRANSITIONS,
    STUDY_TRANSITIONS,
    Decision,
    IllegalTransition,
    RoundEvent,
    RoundKind,
    RoundState,
    StudyEvent,
    StudyState,
    TaskStatus,
)

REFUSED = (
    "The parties left its contribution to round {round} out: it is longer than the plan's "
    "contribution_check.max_norm, or out of range. Ask its operator whether the node is sound."
)


REFUSED_RELEASE = (
    "The parties left its contribution to the release (round {round}) out: it encodes another model than "
    "most hospitals did. Ask its operator whether the node is sound and of the others' version."
)


class Task(Protocol):
    """One hospital's part in a round or a calibration."""

    @property
    def hospital(self) -> str: ...
    @property
    def status(self) -> TaskStatus: ...


@dataclass(frozen=True)
class Participant:
    """One hospital in a round. Weights of a round are exact and sum to 1."""

    hospital: str
    weight: Fraction
    status: TaskStatus = TaskStatus.PENDING
    best_round: int = 0
    """Which round's version it wants released, where it wants training to end."""


@dataclass(frozen=True)
class Round:
    """One round, in its current attempt. Numbers count from 1; the release round comes after the last."""

    number: int
    kind: RoundKind
    participants: tuple[Participant, ...]
    opened_at: datetime
    deadline: datetime
    attempt: int = 0
    state: RoundState = RoundState.OPENING
    survivors: tuple[str, ...] = ()
    closed_at: datetime | None = None
    bytes_between_parties: int = 0

    def agreed_stop(self, *, quorum: int) -> int:
        """The round whose version a quorum wants to end with; 0 while there is none."""
        wanted = Counter(p.best_round for p in self.participants if p.status is TaskStatus.STOP)
        return next((best for best, count in wanted.items() if count >= quorum), 0)

    @property
    def refused(self) -> tuple[str, ...]:
        """Hospitals whose contributions broke the plan's check."""
        return tuple(p.hospital for p in self.participants if p.status is TaskStatus.REFUSED)

    def with_refused(self, hospitals: Iterable[str]) -> Round:
        """The parties left these hospitals' contributions out."""
        refused = set(hospitals)
        participants = tuple(
            replace(p, status=TaskStatus.REFUSED) if p.hospital in refused else p for p in self.participants
        )
        return replace(self, participants=participants)

    def after(self, event: RoundEvent) -> Round:
        """The round in its next state."""
        state = ROUND_TRANSITIONS.get((self.state, event))
        if state is None:
            raise IllegalTransition(f"round {self.number} is {self.state.value}, so not {event.value}")
        return replace(self, state=state)


@dataclass(frozen=True)
class Calibrator:
    """One hospital asked for bounds: step of the architecture -> b, with every value there below 2^b."""

    hospital: str
    status: TaskStatus = TaskStatus.PENDING
    bounds: Mapping[str, int] | None = None


@dataclass(frozen=True)
class Calibration:
    """Who was asked for bounds, and until when."""

    deadline: datetime
    calibrators: tuple[Calibrator, ...]


@dataclass(frozen=True)
class CompiledPlan:
    """What the release makes: a plan without weights, and the bounds it was compiled from."""

    json: bytes
    hash: str
    ring: Ring
    parameter_length: int
    bounds: Mapping[str, int]


@dataclass(frozen=True)
class SignedText:
    """What somebody signed, kept and passed on as it came (`libs/rpc/statements.py`)."""

    payload: bytes
    signature: bytes
    certificate_chain: bytes


@dataclass(frozen=True)
class Member:
    """One hospital with one dataset in a study.

    `images` are those published when the study was created, as its owner discloses them; 0: withheld.
    """

    hospital: str
    hospital_name: str
    dataset_id: str
    dataset_name: str
    images: int
    decision: Decision = Decision.PENDING
    problem: str = ""
    end_told: bool = False


@dataclass(frozen=True)
class Study:
    """A study, complete: what is stored, and all that a restarted coordinator knows of it.

    `statement` is its creator's own word for it; only studies of the first release have none.
    """

    study_id: str
    request_id: str
    title: str
    plan_json: bytes
    plan_hash: str
    rounds_planned: int
    quorum: int
    parameters: int
    creator: str
    created_by: str
    created_at: datetime
    members: tuple[Member, ...]
    state: StudyState = StudyState.CREATED
    rounds: tuple[Round, ...] = ()
    calibration: Calibration | None = None
    compiled: CompiledPlan | None = None
    failure: str = ""
    statement: SignedText | None = None

    # ------------------------------------------------------------ questions

    @property
    def ended(self) -> bool:
        """True once nothing more can happen."""
        return self.state in ENDED

    @property
    def current_round(self) -> Round | None:
        """The newest round, open or not."""
        return self.rounds[-1] if self.rounds else None

    @property
    def rounds_done(self) -> int:
        """Training rounds completed."""
        return sum(r.kind is RoundKind.TRAIN and r.state is RoundState.COMPLETED for r in self.rounds)

    @property
    def stopped(self) -> Round | None:
        """The round in which the hospitals ended training; None where they did not."""
        return next((r for r in self.rounds if r.state is RoundState.STOPPED), None)

    @property
    def final_round(self) -> int:
        """The round whose version is released; 0 while training goes on."""
        if self.stopped is not None:
            return self.stopped.agreed_stop(quorum=self.quorum)
        return self.rounds_planned if self.rounds_done == self.rounds_planned else 0

    @property
    def final_model_id(self) -> str:
        """The version that is calibrated and released, once training is over."""
        return training_model_id(self.study_id, self.final_round)

    def counted_round(self, hospital: str) -> int:
        """The last training round to which this hospital's contribution was added; 0 for none."""
        return max(
            (r.number for r in self.rounds if r.kind is RoundKind.TRAIN and hospital in r.survivors),
            default=0,
        )

    @property
    def latest_model_id(self) -> str:
        """The newest version of the training weights."""
        return training_model_id(self.study_id, self.rounds_done)

    @property
    def released_model_id(self) -> str:
        """The model that can be asked; empty before the study is ready."""
        return release_model_id(self.study_id) if self.state is StudyState.READY else ""

    @property
    def approved(self) -> tuple[Member, ...]:
        """The hospitals whose owners agreed."""
        return tuple(member for member in self.members if member.decision is Decision.APPROVED)

    @property
    def decided(self) -> bool:
        """True once no owner's answer is missing."""
        return all(member.decision is not Decision.PENDING for member in self.members)

    @property
    def short_of_hospitals(self) -> str:
        """Why the quorum cannot be met any more; empty while it can."""
        denied = sum(member.decision is Decision.DENIED for member in self.members)
        if len(self.members) - denied >= self.quorum:
            return ""
        return (
            f"{denied} of {len(self.members)} hospitals denied the training plan, which needs {self.quorum}. "
            "Ask their owners for the reason, or create a study with other data or a lower quorum."
        )

    def member(self, hospital: str) -> Member | None:
        """The hospital's part in this study, if it has one."""
        return next((member for member in self.members if member.hospital == hospital), None)

    # ------------------------------------------------------------ what happens

    def after(self, event: StudyEvent) -> Study:
        """The study in its next state."""
        state = STUDY_TRANSITIONS.get((self.state, event))
        if state is None:
            raise IllegalTransition(f"study {self.study_id} is {self.state.value}, so not {event.value}")
        return replace(self, state=state)

    def with_decision(self, hospital: str, *, approved: bool, reason: str) -> Study:
        """An owner answered. Unchanged if it has no part here, has denied already, or the study is over."""
        member = None if self.ended else self.member(hospital)
        decision = None if member is None else DECISION_TRANSITIONS.get((member.decision, approved))
        if member is None or decision is None:
            return self
        return self._with_member(replace(member, decision=decision, problem=reason if not approved else ""))

    def with_end_told(self, hospital: str) -> Study:
        """The hospital was sent the study's end."""
        member = self.member(hospital)
        return self if member is None else self._with_member(replace(member, end_told=True))

    def with_problem(self, hospital: str, problem: str) -> Study:
        """What went wrong at a hospital, in its own public words; empty clears it."""
        member = self.member(hospital)
        return self if member is None else self._with_member(replace(member, problem=problem))

    def with_round(
        self,
        kind: RoundKind,
        hospitals: AbstractSet[str],
        *,
        strategy: Weighing,
        opened_at: datetime,
        deadline: datetime,
    ) -> Study:
        """A new round with those of `hospitals` that approved; a new attempt after an abandoned one."""
        participants = weigh(
            (m for m in self.approved if m.hospital in hospitals), strategy, study=self.members
        )
        last = self.current_round
        if last is not None and last.state is RoundState.ABANDONED:
            retried = replace(
                last.after(RoundEvent.RETRIED),
                attempt=last.attempt + 1,
                participants=participants,
                opened_at=opened_at,
                deadline=deadline,
            )
            return self._with_last(retried)
        expected = self.rounds_planned + 1 if kind is RoundKind.RELEASE else self.rounds_done + 1
        if last is not None and last.state not in (RoundState.COMPLETED, RoundState.STOPPED):
            raise IllegalTransition(f"round {last.number} is {last.state.value}; another cannot open")
        opened = Round(expected, kind, participants, opened_at, deadline)
        return replace(self, rounds=(*self.rounds, opened))

    def with_round_event(self, event: RoundEvent) -> Study:
        """The current round in its next state."""
        if self.current_round is None:
            raise IllegalTransition(f"study {self.study_id} has no round to be {event.value}")
        return self._with_last(self.current_round.after(event))

    def with_refused(self, hospitals: Iterable[str]) -> Study:
        """The parties' check refused contributions to the current round; its hospitals' problem, in words."""
        refused = set(hospitals)
        last = self.current_round
        if last is None or not refused:
            return self
        study = self._with_last(last.with_refused(refused))
        text = REFUSED_RELEASE if last.kind is RoundKind.RELEASE else REFUSED
        problem = text.format(round=last.number)
        for member in study.members:
            if member.hospital in refused:
                study = study._with_member(replace(member, problem=problem))
        return study

    def with_aggregate(
        self, survivors: tuple[str, ...], *, closed_at: datetime, bytes_between_parties: int
    ) -> Study:
        """The three parties added the survivors' contributions."""
        closed = self.with_round_event(RoundEvent.AGGREGATED).rounds[-1]
        return self._with_last(
            replace(
                closed, survivors=survivors, closed_at=closed_at, bytes_between_parties=bytes_between_parties
            )
        )

    def with_round_opened(self, *, opened_at: datetime, deadline: datetime) -> Study:
        """The three parties take contributions. The time that opening took is not the hospitals'."""
        opened = self.with_round_event(RoundEvent.OPENED).rounds[-1]
        return self._with_last(replace(opened, opened_at=opened_at, deadline=deadline))

    def with_task(self, hospital: str, *, number: int, attempt: int, status: TaskStatus) -> Study:
        """A participant said that it has sent, or cannot. Unchanged if it was not asked for that."""
        last = self.current_round
        if (
            last is None
            or last.state is not RoundState.OPEN
            or (last.number, last.attempt) != (number, attempt)
        ):
            return self
        participants = tuple(
            replace(p, status=status) if p.hospital == hospital and p.status is TaskStatus.PENDING else p
            for p in last.participants
        )
        return self._with_last(replace(last, participants=participants))

    def with_stop(self, hospital: str, *, number: int, attempt: int, best_round: int) -> Study:
        """A participant wants training to end. Unchanged if it was not asked, or wants what cannot be."""
        last = self.current_round
        if last is None or last.kind is not RoundKind.TRAIN or not 1 <= best_round < number:
            return self
        changed = self.with_task(hospital, number=number, attempt=attempt, status=TaskStatus.STOP)
        if changed is self or changed.current_round is None:
            return self
        participants = tuple(
            replace(p, best_round=best_round)
            if p.hospital == hospital and p.status is TaskStatus.STOP and not p.best_round
            else p
            for p in changed.current_round.participants
        )
        return changed._with_last(replace(changed.current_round, participants=participants))

    def with_calibration(self, hospitals: Iterable[str], *, deadline: datetime) -> Study:
        """All rounds are done; ask these hospitals for bounds."""
        asked = tuple(Calibrator(hospital) for hospital in hospitals)
        return replace(self.after(StudyEvent.TRAINED), calibration=Calibration(deadline, asked))

    def with_bounds(self, hospital: str, bounds: Mapping[str, int] | None) -> Study:
        """A hospital's bounds, or None if it failed. Unchanged if it was not asked or has answered."""
        if self.state is not StudyState.CALIBRATING or self.calibration is None:
            return self
        status = TaskStatus.FAILED if bounds is None else TaskStatus.DONE
        calibrators = tuple(
            replace(c, status=status, bounds=bounds) if c == Calibrator(hospital) else c
            for c in self.calibration.calibrators
        )
        return replace(self, calibration=replace(self.calibration, calibrators=calibrators))

    def with_compiled(self, compiled: CompiledPlan) -> Study:
        """The bounds are in and the plan is compiled."""
        return replace(self.after(StudyEvent.CALIBRATED), compiled=compiled)

    def with_failure(self, reason: str) -> Study:
        """The study ends, with the reason in plain words."""
        return replace(self.after(StudyEvent.FAILED), failure=reason)

    def _with_member(self, changed: Member) -> Study:
        members = tuple(changed if m.hospital == changed.hospital else m for m in self.members)
        return replace(self, members=members)

    def _with_last(self, changed: Round) -> Study:
        return replace(self, rounds=(*self.rounds[:-1], changed))


def training_model_id(study_id: str, number: int) -> str:
    """The version of the weights after training round `number`; 0 is the one that the scientist deals."""
    return f"{study_id}/round-{number}"


def release_model_id(study_id: str) -> str:
    """The released model."""
    return f"{study_id}/released"


def weigh(
    members: Iterable[Member], strategy: Weighing, *, study: Iterable[Member]
) -> tuple[Participant, ...]:
    """The members with the weights that the strategy gives them. Errors as `Strategy.weights`.

    Those that withhold their number of images (0) count as the average of the whole `study`.
    """
    images = counted({member.hospital: member.images for member in study})
    weights = strategy.weights({member.hospital: images[member.hospital] for member in members})
    return tuple(Participant(hospital, weight) for hospital, weight in weights.items())


def is_over(
    tasks: Iterable[Task], *, deadline: datetime, now: datetime, quorum: int, gone: AbstractSet[str]
) -> bool:
    """Whether waiting longer is pointless: all answered, time is up, or only hospitals long gone miss.

    `gone` are those that have been detached for longer than the grace time. They end the wait only when
    enough others are done; otherwise they have until the deadline to come back.
    """
    every = tuple(tasks)
    pending = {task.hospital for task in every if task.status is TaskStatus.PENDING}
    done = sum(task.status is TaskStatus.DONE for task in every)
    return not pending or now >= deadline or (pending <= gone and done >= quorum)
