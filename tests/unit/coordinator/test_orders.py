"""What hospitals are told follows from the study alone."""

from __future__ import annotations

import pytest

from services.coordinator.domain import Study
from services.coordinator.orders import outstanding_orders
from services.coordinator.states import RoundKind, TaskStatus
from tests.fakes.studies import (
    COMPILED,
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

STRANGER = "spiffe://trefoil.local/hospital/stranger"


def kinds(study: Study, hospital: str = A) -> list[str | None]:
    return [order.message.WhichOneof("order") for order in outstanding_orders(study, hospital)]


RELEASING = in_round(calibrating().with_compiled(COMPILED), RoundKind.RELEASE)


@pytest.mark.parametrize(
    ("study", "expected"),
    [
        (created(), ["proposal"]),
        (created().with_decision(A, approved=True, reason=""), []),
        (training(), []),
        (opening(training()), []),  # the parties do not take contributions yet
        (in_round(training()), ["train"]),
        (in_round(training()).with_task(A, number=1, attempt=0, status=TaskStatus.DONE), []),
        (in_round(training()).with_task(A, number=1, attempt=0, status=TaskStatus.FAILED), []),
        (in_round(training()).with_decision(A, approved=False, reason=""), []),
        (after_round(training()), []),
        (after_round(training()).with_refused([A]), ["contribution_refused"]),
        (after_round(training()).with_refused([B]), []),
        (in_round(after_round(training(rounds=2)).with_refused([A])), ["contribution_refused", "train"]),
        (calibrating(), ["calibrate"]),
        (calibrating().with_decision(A, approved=False, reason=""), []),
        (calibrating().with_bounds(A, {"conv": 3}), []),
        (RELEASING, ["release"]),
        (released(), ["study_ended"]),
        (released().with_end_told(A), []),
    ],
)
def test_what_is_outstanding_follows_from_the_state(study: Study, expected: list[str]) -> None:
    assert kinds(study) == expected
    assert kinds(study, STRANGER) == []


def test_a_hospital_is_told_which_of_its_contributions_was_refused() -> None:
    trained, released = after_round(training()).with_refused([A]), RELEASING.with_refused([A])
    said = [
        order.message.contribution_refused.release
        for study in (trained, released)
        for order in outstanding_orders(study, A)
        if order.message.HasField("contribution_refused")
    ]
    assert said == [False, True]
    assert "encodes another model" in released.members[0].problem


def test_a_proposal_names_the_hospitals_and_everybody_who_may_read_the_sums() -> None:
    (order,) = outstanding_orders(created(), A)
    proposal = order.message.proposal
    assert proposal.hospital_identities == [A, B, C]
    assert proposal.reader_identities == [created().creator, A, B, C]


def test_a_train_order_names_the_version_to_start_from_and_the_exact_weight() -> None:
    (order,) = outstanding_orders(in_round(after_round(training(rounds=2))), C)
    train = order.message.train
    assert (train.round.round, train.base_model_id) == (2, "study-1/round-1")
    assert (train.weight.numerator, train.weight.denominator) == (1, 2)


def test_a_release_order_starts_from_the_last_trained_version() -> None:
    (order,) = outstanding_orders(RELEASING, B)
    release = order.message.release
    assert (release.round.round, release.base_model_id) == (2, "study-1/round-1")
    assert dict(release.bound_bits) == dict(COMPILED.bounds)
    assert release.compiled_plan_hash == COMPILED.hash
