from __future__ import annotations

import asyncio
from dataclasses import replace
from pathlib import Path

import pytest

from libs.core.errors import FailedPrecondition, Unavailable
from services.hospital_node.adapters.database import Database
from services.hospital_node.adapters.tables import AUDIT
from services.hospital_node.adapters.transactions import Transactions
from services.hospital_node.domain import ProposalEvent, ProposalState, TaskState
from tests.fakes.audit import unsigned_trail
from tests.fakes.hospital_ports import proposal, train_order


async def test_the_first_proposal_of_a_study_stays(store: Database) -> None:
    first = await store.add_proposal(proposal())
    second = await store.add_proposal(replace(proposal(), plan_hash="other"))
    assert second == first == proposal()


async def test_of_proposals_at_once_one_is_kept_and_all_are_told_which(store: Database) -> None:
    offered = [replace(proposal(), plan_hash=f"hash-{i}") for i in range(8)]
    kept = await asyncio.gather(*(store.add_proposal(one) for one in offered))
    assert set(kept) == {await store.proposal("study-1")}


async def test_a_denial_at_once_with_an_approval_is_final(store: Database) -> None:
    for i in range(10):
        study = f"study-{i}"
        await store.add_proposal(proposal(study_id=study))
        events = [ProposalEvent.APPROVE] * 3 + [ProposalEvent.DENY] + [ProposalEvent.APPROVE] * 3
        await asyncio.gather(*(store.move_proposal(study, e) for e in events), return_exceptions=True)
        assert (await store.proposal(study)).state is ProposalState.DENIED


async def test_a_decision_is_kept_over_a_restart(store: Database, transactions: Transactions) -> None:
    await store.add_proposal(proposal())
    await store.move_proposal("study-1", ProposalEvent.APPROVE, reason="fine")
    transactions.close()
    again = await Database(Transactions(str(transactions.engine.url)), unsigned_trail(AUDIT)).proposal(
        "study-1"
    )
    assert (again.state, again.reason) == (ProposalState.APPROVED, "fine")


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


async def test_a_task_that_was_never_started_cannot_end(store: Database) -> None:
    with pytest.raises(FailedPrecondition):
        await store.finish_task(train_order().key)


def test_a_database_that_cannot_be_opened_says_which_setting_to_look_at(tmp_path: Path) -> None:
    with pytest.raises(Unavailable, match="setting database"):
        Transactions(f"sqlite:///{tmp_path}/missing/folder/hospital.db")
