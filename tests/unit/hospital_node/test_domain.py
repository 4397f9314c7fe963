from __future__ import annotations

import pytest

from libs.core.errors import FailedPrecondition
from services.hospital_node.domain import (
    TASK_TRANSITIONS,
    Task,
    TaskEvent,
    TaskState,
    admit,
)
from tests.fakes.hospital_ports import train_order


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
