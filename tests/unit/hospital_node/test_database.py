from __future__ import annotations

from pathlib import Path

import pytest

from libs.core.errors import FailedPrecondition, Unavailable
from services.hospital_node.adapters.database import Database
from services.hospital_node.adapters.transactions import Transactions
from services.hospital_node.domain import TaskState
from tests.fakes.hospital_ports import train_order


async def test_a_finished_task_is_never_started_again(store: Database) -> None:
    order = train_order()
    await store.start_task(order)
    await store.mark_sending(order.key, upload_id="upload-1")
    await store.finish_task(order.key)
    again = await store.start_task(order)
    assert (again.state, again.upload_id) == (TaskState.DONE, "upload-1")


async def test_a_restart_before_sending_allows_another_start_and_one_while_sending_does_not(
    store: Database,
) -> None:
    first, second = train_order(1), train_order(2)
    await store.start_task(first)
    assert await store.fail_interrupted_tasks() == 1
    assert (await store.start_task(first)).state is TaskState.RUNNING
    await store.fail_task(first.key, code="unavailable", message="")
    await store.start_task(second)
    await store.mark_sending(second.key, upload_id="upload-2")
    assert await store.fail_interrupted_tasks() == 1
    with pytest.raises(FailedPrecondition, match="may have left"):
        await store.start_task(second)
    assert (await store.start_task(train_order(2, attempt=1))).state is TaskState.RUNNING


async def test_a_refused_contribution_is_remembered_once_and_never_sent_again(store: Database) -> None:
    order = train_order()
    await store.start_task(order)
    with pytest.raises(FailedPrecondition):  # nothing left the node that anybody could refuse
        await store.refuse_task(order.key)
    await store.mark_sending(order.key, upload_id="upload-1")
    await store.finish_task(order.key)
    assert await store.refuse_task(order.key)
    assert not await store.refuse_task(order.key)
    with pytest.raises(FailedPrecondition):
        await store.start_task(order)


async def test_a_task_that_was_never_started_cannot_end(store: Database) -> None:
    with pytest.raises(FailedPrecondition):
        await store.finish_task(train_order().key)


def test_a_database_that_cannot_be_opened_says_which_setting_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="setting database"):
        Transactions(f"sqlite:///{tmp_path}/missing/folder/hospital.db")
