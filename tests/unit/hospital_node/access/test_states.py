from __future__ import annotations

import itertools
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from libs.core.errors import FailedPrecondition, InvalidInput
from libs.dp.budget import UNBOUNDED, Spend
from services.hospital_node.access.costs import covers, decimal_text, parse_cost
from services.hospital_node.access.domain import (
    APPROVAL_ALLOWS,
    REQUEST_TRANSITIONS,
    STUDY_TRANSITIONS,
    Approval,
    ApprovalEvent,
    ApprovalState,
    Purpose,
    RequestEvent,
    RequestState,
    Study,
    StudyEvent,
    StudyState,
)
from services.hospital_node.access.proposals import request_of
from tests.fakes.access import cost
from tests.fakes.hospital_ports import HOSPITALS, NOW, PLAN, STUDY

STUDY_HERE = Study(
    study_id=STUDY,
    statement_id="dana said so",
    title="Pneumonia",
    requester="spiffe://trefoil.local/client/dana",
    requested_by="dana",
    dataset_name="chest",
    content_hash="c" * 64,
    plan_hash=PLAN.hash,
    training_plan=PLAN.canonical_json(),
    hospitals=HOSPITALS,
    readers=HOSPITALS,
    received_at=NOW,
)
REQUEST = request_of(STUDY_HERE, planned=cost("1"), version=1)
APPROVAL = Approval("approval-1", STUDY, Purpose.TRAINING, "chest", "dana", cost("1"), uses=2)


@pytest.mark.parametrize(
    ("states", "events", "table", "value"),
    [
        (RequestState, RequestEvent, REQUEST_TRANSITIONS, REQUEST),
        (StudyState, StudyEvent, STUDY_TRANSITIONS, STUDY_HERE),
    ],
    ids=["request", "study"],
)
def test_nothing_moves_but_as_its_table_says(states: Any, events: Any, table: Any, value: Any) -> None:
    for state, event in itertools.product(states, events):
        there = replace(value, state=state)
        if (state, event) in table:
            assert there.next_state(event) is table[state, event]
        else:
            with pytest.raises(FailedPrecondition, match=state.value):
                there.next_state(event)


def test_a_denial_is_final() -> None:
    assert (RequestState.DENIED, RequestEvent.APPROVE) not in REQUEST_TRANSITIONS
    assert (StudyState.DENIED, StudyEvent.ADMIT) not in STUDY_TRANSITIONS
    assert (StudyState.ENDED, StudyEvent.ADMIT) not in STUDY_TRANSITIONS


LATER = NOW + timedelta(hours=1)
APPROVALS = {
    ApprovalState.LIVE: replace(APPROVAL, used=1, expires_at=LATER),
    ApprovalState.USED_UP: replace(APPROVAL, used=2, expires_at=LATER),
    ApprovalState.EXPIRED: replace(APPROVAL, expires_at=NOW),
    ApprovalState.REVOKED: replace(APPROVAL, used=2, expires_at=NOW, revoked_at=NOW),
}


@pytest.mark.parametrize(("state", "event"), list(itertools.product(ApprovalState, ApprovalEvent)))
def test_an_approval_allows_only_what_its_table_says(state: ApprovalState, event: ApprovalEvent) -> None:
    approval = APPROVALS[state]
    assert approval.state(NOW) is state
    if (state, event) in APPROVAL_ALLOWS:
        approval.require(event, now=NOW)
    else:
        with pytest.raises(FailedPrecondition, match="approval-1"):
            approval.require(event, now=NOW)


def test_nothing_begins_under_an_approval_that_is_over() -> None:
    for state in (ApprovalState.USED_UP, ApprovalState.EXPIRED, ApprovalState.REVOKED):
        assert (state, ApprovalEvent.USE) not in APPROVAL_ALLOWS
    for state in (ApprovalState.EXPIRED, ApprovalState.REVOKED):
        assert (state, ApprovalEvent.GO_ON) not in APPROVAL_ALLOWS


@pytest.mark.parametrize("epsilon", ["-1", "1e3", "nan", "1/3", " 1", "١", "infinity", "1" * 13])
def test_a_cost_that_is_no_decimal_is_refused(epsilon: str) -> None:
    with pytest.raises(InvalidInput):
        parse_cost(epsilon=epsilon, delta="0")
    with pytest.raises(InvalidInput):
        parse_cost(epsilon="1", delta=epsilon)


def test_costs_are_exact_and_their_text_reads_back() -> None:
    for text in ("0", "2", "0.5", "0.000001", "123456789012.000000000000000001"):
        assert decimal_text(parse_cost(epsilon=text, delta="").epsilon) == text  # type: ignore[arg-type]
    assert parse_cost(epsilon="inf", delta="") == Spend(UNBOUNDED)
    with pytest.raises(InvalidInput, match="there is no delta"):
        parse_cost(epsilon="inf", delta="0.1")


def test_a_limit_covers_what_is_within_both_of_its_parts() -> None:
    limit = cost("1", "0.001")
    assert covers(limit, limit)
    assert not covers(limit, cost("1.000001", "0"))
    assert not covers(limit, cost("0", "0.002"))
    assert not covers(limit, Spend(UNBOUNDED))
    assert covers(Spend(UNBOUNDED), cost("1000", "0.5"))
