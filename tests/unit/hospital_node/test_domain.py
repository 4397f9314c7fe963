from __future__ import annotations

import itertools
from dataclasses import replace

import pytest

from libs.core.errors import FailedPrecondition
from services.hospital_node.domain import (
    PROPOSAL_TRANSITIONS,
    TASK_TRANSITIONS,
    ProposalEvent,
    ProposalState,
    Task,
    TaskEvent,
    TaskState,
    admit,
)
from tests.fakes.hospital_ports import proposal, train_order


@pytest.mark.parametrize(("state", "event"), list(itertools.product(ProposalState, ProposalEvent)))
def test_a_proposal_moves_only_as_the_table_says(state: ProposalState, event: ProposalEvent) -> None:
    there = replace(proposal(), state=state)
    if (state, event) in PROPOSAL_TRANSITIONS:
        assert there.next_state(event) is PROPOSAL_TRANSITIONS[state, event]
    else:
        with pytest.raises(FailedPrecondition, match=state.value):
            there.next_state(event)


def test_a_denial_is_final() -> None:
    assert (ProposalState.DENIED, ProposalEvent.APPROVE) not in PROPOSAL_TRANSITIONS
    assert (ProposalState.ENDED, ProposalEvent.APPROVE) not in PROPOSAL_TRANSITIONS


def test_nothing_is_done_again_once_a_share_may_have_left() -> None:
    for state in (TaskState.SENDING, TaskState.DONE, TaskState.LOST):
        assert (state, TaskEvent.START) not in TASK_TRANSITIONS


def task(number: int, attempt: int, state: TaskState, base: str = "") -> Task:
    order = train_order(number, attempt=attempt)
    return Task(key=order.key, state=state, base_model_id=base or order.base_model_id)


@pytest.mark.parametrize(
    "before",
    [
        task(2, 0, TaskState.DONE),
        task(1, 2, TaskState.FAILED),
        task(1, 0, TaskState.DONE, base="study-1/other"),
        task(1, 1, TaskState.LOST),
    ],
    ids=["newer round", "newer attempt", "same round from another version", "shares may have left"],
)
def test_an_order_that_does_not_go_forward_is_refused(before: Task) -> None:
    with pytest.raises(FailedPrecondition):
        admit(train_order(1, attempt=1), [before])


@pytest.mark.parametrize(
    "before",
    [task(1, 0, TaskState.DONE), task(1, 0, TaskState.LOST), task(1, 1, TaskState.FAILED)],
    ids=["the next attempt", "after a lost attempt", "again after failing before anything left"],
)
def test_an_order_that_goes_forward_is_admitted(before: Task) -> None:
    admit(train_order(1, attempt=1), [before])
