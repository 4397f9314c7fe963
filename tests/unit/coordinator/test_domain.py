"""State machines: what the tables allow happens, and nothing else can."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from fractions import Fraction
from itertools import product

import pytest

from libs.core.errors import InvalidInput
from libs.fl.strategies.fedavg import FedAvg
from services.coordinator.domain import Participant, is_over, weigh
from services.coordinator.states import (
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
from tests.fakes.studies import (
    ALL,
    COMPILED,
    LATER,
    NOW,
    A,
    B,
    C,
    after_round,
    calibrating,
    created,
    in_round,
    opening,
    released,
    training,
)


@pytest.mark.parametrize(("state", "event"), list(product(StudyState, StudyEvent)))
def test_a_study_moves_by_its_table_only(state: StudyState, event: StudyEvent) -> None:
    study = replace(created(), state=state)
    if (state, event) in STUDY_TRANSITIONS:
        assert study.after(event).state is STUDY_TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition):
            study.after(event)


def test_every_state_is_reached_and_ended_ones_are_never_left() -> None:
    assert set(STUDY_TRANSITIONS.values()) == set(StudyState) - {StudyState.CREATED}
    assert not [state for state, _ in STUDY_TRANSITIONS if state in ENDED]
    assert {state for state, _ in STUDY_TRANSITIONS} == set(StudyState) - ENDED


@pytest.mark.parametrize(("state", "event"), list(product(RoundState, RoundEvent)))
def test_a_round_moves_by_its_table_only(state: RoundState, event: RoundEvent) -> None:
    current = replace(opening(training()).rounds[0], state=state)
    if (state, event) in ROUND_TRANSITIONS:
        assert current.after(event).state is ROUND_TRANSITIONS[state, event]
    else:
        with pytest.raises(IllegalTransition):
            current.after(event)


def test_the_whole_way_ends_with_a_released_model() -> None:
    study = released()
    assert study.state is StudyState.READY
    assert study.released_model_id == "study-1/released"
    assert study.latest_model_id == "study-1/round-1"
    assert [(r.number, r.kind) for r in study.rounds] == [(1, RoundKind.TRAIN), (2, RoundKind.RELEASE)]


def test_a_second_round_cannot_open_beside_an_open_one() -> None:
    with pytest.raises(IllegalTransition):
        in_round(in_round(training(rounds=2)))


def test_weights_sum_to_exactly_one() -> None:
    members = created().members
    weights = [p.weight for p in weigh(members, FedAvg(), study=members)]
    assert weights == [Fraction(1, 6), Fraction(1, 3), Fraction(1, 2)]
    assert sum(p.weight for p in weigh(members[:2], FedAvg(), study=members)) == 1
    with pytest.raises(InvalidInput):
        weigh((), FedAvg(), study=members)


def test_who_withholds_the_number_of_images_counts_as_the_average_of_the_study() -> None:
    numbers = (0, 2, 4)
    members = tuple(replace(m, images=n) for m, n in zip(created().members, numbers, strict=True))
    shares = [p.weight for p in weigh(members, FedAvg(), study=members)]
    assert shares == [Fraction(3, 9), Fraction(2, 9), Fraction(4, 9)]
    # Also where not all that tell take part in the round.
    assert [p.weight for p in weigh(members[:2], FedAvg(), study=members)] == [Fraction(3, 5), Fraction(2, 5)]
    quiet = tuple(replace(member, images=0) for member in members)
    assert [p.weight for p in weigh(quiet, FedAvg(), study=quiet)] == [Fraction(1, 3)] * 3


class _AllAlike:
    def weights(self, samples: Mapping[str, int]) -> dict[str, Fraction]:
        return {participant: Fraction(1, len(samples)) for participant in samples}


def test_a_round_takes_its_weights_from_the_strategy() -> None:
    study = training().with_round(
        RoundKind.TRAIN, frozenset({A, B, C}), strategy=_AllAlike(), opened_at=NOW, deadline=LATER
    )
    assert [p.weight for p in study.rounds[0].participants] == [Fraction(1, 3)] * 3


def test_a_round_takes_only_hospitals_that_approved() -> None:
    study = training().with_decision(C, approved=False, reason="")
    assert [p.hospital for p in opening(study).rounds[0].participants] == [A, B]


def test_a_retry_is_the_same_round_with_new_participants_and_nothing_done() -> None:
    study = in_round(training()).with_task(A, number=1, attempt=0, status=TaskStatus.DONE)
    study = study.with_round_event(RoundEvent.OVER).with_round_event(RoundEvent.FELL_SHORT)
    retried = study.with_round(
        RoundKind.TRAIN, frozenset({A, B}), strategy=FedAvg(), opened_at=NOW, deadline=LATER
    )
    (current,) = retried.rounds
    assert (current.number, current.attempt, current.state) == (1, 1, RoundState.OPENING)
    assert current.participants == (Participant(A, Fraction(1, 3)), Participant(B, Fraction(2, 3)))


def test_a_hospital_whose_contribution_was_refused_is_named_with_the_reason() -> None:
    study = in_round(training()).with_task(B, number=1, attempt=0, status=TaskStatus.DONE)
    study = study.with_refused([B])
    assert study.rounds[0].refused == (B,)
    assert [bool(member.problem) for member in study.members] == [False, True, False]
    assert "round 1" in study.members[1].problem
    assert study.with_refused([]) == study


@pytest.mark.parametrize(("number", "attempt"), [(2, 0), (1, 1), (0, 0)])
def test_words_about_another_round_or_attempt_change_nothing(number: int, attempt: int) -> None:
    study = in_round(training())
    assert study.with_task(A, number=number, attempt=attempt, status=TaskStatus.DONE) == study


def test_a_strangers_words_change_nothing() -> None:
    study, stranger = in_round(training()), "spiffe://trefoil.local/hospital/stranger"
    assert study.with_task(stranger, number=1, attempt=0, status=TaskStatus.DONE) == study
    assert study.with_decision(stranger, approved=False, reason="") == study
    assert calibrating().with_bounds(stranger, {"conv": 1}) == calibrating()


def test_the_first_word_of_a_hospital_counts() -> None:
    study = in_round(training()).with_task(A, number=1, attempt=0, status=TaskStatus.FAILED)
    assert study.with_task(A, number=1, attempt=0, status=TaskStatus.DONE) == study
    calibrated = calibrating().with_bounds(A, {"conv": 1})
    assert calibrated.with_bounds(A, {"conv": 9}) == calibrated


def test_a_denial_is_final_and_an_approval_can_be_withdrawn() -> None:
    study = (
        created().with_decision(A, approved=True, reason="").with_decision(A, approved=False, reason="why")
    )
    assert study.member(A).decision is Decision.DENIED  # type: ignore[union-attr]
    assert study.with_decision(A, approved=True, reason="") == study


def test_an_ended_study_takes_no_decision() -> None:
    assert released().with_decision(A, approved=False, reason="") == released()


def test_bounds_count_only_while_calibrating() -> None:
    study = calibrating().with_compiled(COMPILED)
    assert study.with_bounds(A, {"conv": 1}) == study
    assert after_round(training()).with_bounds(A, {"conv": 1}) == after_round(training())


DONE, PENDING, FAILED = TaskStatus.DONE, TaskStatus.PENDING, TaskStatus.FAILED


@pytest.mark.parametrize(
    ("statuses", "gone", "late", "over"),
    [
        ((DONE, DONE, DONE), (), False, True),
        ((DONE, FAILED, DONE), (), False, True),
        ((FAILED, FAILED, FAILED), (), False, True),
        ((DONE, DONE, PENDING), (), False, False),
        ((DONE, DONE, PENDING), (), True, True),
        ((PENDING, PENDING, PENDING), (), True, True),
        ((DONE, DONE, PENDING), (C,), False, True),
        ((DONE, DONE, PENDING), (A,), False, False),
        ((DONE, PENDING, PENDING), (B, C), False, False),  # below the quorum they have until the deadline
        ((DONE, PENDING, PENDING), (B, C), True, True),
    ],
)
def test_a_round_is_over_by_answers_by_the_clock_or_by_absence(
    statuses: tuple[TaskStatus, ...], gone: tuple[str, ...], late: bool, over: bool
) -> None:
    tasks = [Participant(h, Fraction(1, 3), s) for h, s in zip((A, B, C), statuses, strict=True)]
    now = LATER if late else LATER - timedelta(seconds=1)
    assert is_over(tasks, deadline=LATER, now=now, quorum=2, gone=frozenset(gone)) is over


def test_everybody_takes_part_by_default() -> None:
    assert {p.hospital for p in opening(training()).rounds[0].participants} == ALL
