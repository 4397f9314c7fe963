"""The ledger: only grows, refuses, and counts what was taken whoever allowed it."""

from __future__ import annotations

from dataclasses import replace

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from sqlalchemy import text
from sqlalchemy.exc import DatabaseError

from libs.core.errors import FailedPrecondition, NotFound
from libs.dp.budget import Spend
from libs.dp.events import NoPrivacy, from_json
from services.hospital_node.access import ledger
from services.hospital_node.access.domain import LedgerKind
from services.hospital_node.access.planning import attempt_cost
from services.hospital_node.access.requests import Decision
from services.hospital_node.adapters.tables import Base
from services.hospital_node.domain import TaskState
from tests.fakes.access import DANA, FREELY, PRIVATE_PLAN, AccessRig, cost
from tests.fakes.hospital_ports import PLAN, STUDY, dataset, shelve, train_order, unshelve


async def admitted(rig: AccessRig) -> None:
    """The private plan, under an approval with room for more than it costs."""
    await rig.access.access_asked(rig.people.asked(plan=PRIVATE_PLAN, epsilon="100", delta="0.1"))
    await rig.decide("request-1", Decision(True, PRIVATE_PLAN.hash))
    await rig.access.plan_proposed(rig.people.proposal(PRIVATE_PLAN))


async def pay(rig: AccessRig, attempt: int, *, number: int = 1) -> None:
    await rig.access.pay_for_attempt(
        study_id=STUDY, plan_hash=PRIVATE_PLAN.hash, number=number, attempt=attempt
    )


async def try_round(rig: AccessRig, attempt: int, *, state: TaskState) -> None:
    """Pay, begin, and come as far as `state`."""
    await pay(rig, attempt)
    order = train_order(1, attempt=attempt, plan_hash=PRIVATE_PLAN.hash)
    await rig.database.start_task(order)
    if state is not TaskState.FAILED:
        await rig.database.mark_sending(order.key, upload_id=f"upload-{attempt}")
    if state is TaskState.DONE:
        await rig.database.finish_task(order.key)
    else:
        await rig.database.fail_task(order.key, code="unavailable", message="")


@pytest.mark.parametrize(
    "statement", ["UPDATE privacy_ledger SET epsilon = '0'", "DELETE FROM privacy_ledger"]
)
async def test_the_database_itself_refuses_to_change_or_delete_an_entry(
    rig: AccessRig, statement: str
) -> None:
    with pytest.raises(DatabaseError, match="append-only"), rig.transactions.engine.begin() as connection:
        connection.execute(text(statement))
    assert await rig.store.run(lambda unit: unit.budget("chest")) == FREELY


async def test_what_migrations_make_is_what_the_code_reads(rig: AccessRig) -> None:
    tables = {"access_requests", "approvals", "studies", "access_rules", "privacy_ledger", "model_uses"}
    assert tables <= set(Base.metadata.tables)

    def ours(_item: object, name: str | None, kind: str, _reflected: bool, _other: object) -> bool:
        return kind != "table" or name in tables

    with rig.transactions.engine.connect() as connection:
        context = MigrationContext.configure(connection, opts={"include_object": ours})
        assert compare_metadata(context, Base.metadata) == []


async def test_entries_count_without_gaps_and_name_event_consumer_approval_and_study(
    rig: AccessRig,
) -> None:
    await rig.access.plan_proposed(rig.people.proposal())
    await rig.decide(STUDY)
    budget, taken = await rig.store.run(lambda unit: unit.entries())
    assert (budget.sequence, budget.line.kind) == (1, LedgerKind.BUDGET_SET)
    assert (taken.sequence, taken.line.kind) == (2, LedgerKind.ADMITTED)
    assert from_json(taken.line.event) == NoPrivacy()
    approval = await rig.approval_of(STUDY)
    line = taken.line
    assert (line.consumer, line.approval_id, line.study_id) == (DANA.uri, approval.approval_id, STUDY)


async def test_a_balance_is_budget_spent_and_left_and_a_lower_budget_leaves_nothing(rig: AccessRig) -> None:
    await rig.set_budget(cost("8", "0.001"))
    await admitted(rig)
    [entry] = await rig.entries()
    taken = entry.line.cost
    found = await rig.store.run(lambda unit: ledger.balance(unit, "chest"))
    assert isinstance(taken.epsilon, type(cost("1").epsilon))
    assert (found.budget, found.spent) == (cost("8", "0.001"), taken)
    assert found.left == Spend(8 - taken.epsilon, cost("0", "0.001").delta - taken.delta)  # type: ignore[operator]
    lower = await rig.set_budget(cost("0.1", "0"))
    assert (lower.spent, lower.left) == (taken, cost("0"))


async def test_a_budget_is_for_a_data_set_that_is_published(rig: AccessRig) -> None:
    await unshelve(rig.datasets, "chest")
    with pytest.raises(NotFound):
        await rig.set_budget(cost("1"))


async def test_what_was_taken_stays_taken_under_the_same_name_with_other_content(rig: AccessRig) -> None:
    await rig.set_budget(cost("8", "0.001"))
    await admitted(rig)
    before = await rig.store.run(lambda unit: ledger.balance(unit, "chest"))
    await unshelve(rig.datasets, "chest")
    await shelve(rig.datasets, replace(dataset(), version=2, content_hash="d" * 64))
    assert await rig.store.run(lambda unit: ledger.balance(unit, "chest")) == before


# ---------------------------------------------------------------- rounds that are held again


async def test_the_first_attempt_at_a_round_is_paid_for_by_admission(rig: AccessRig) -> None:
    await admitted(rig)
    await pay(rig, 0)
    await pay(rig, 1)  # the coordinator may begin with any number
    assert len(await rig.entries()) == 1


@pytest.mark.parametrize("state", [TaskState.DONE, TaskState.LOST])
async def test_another_attempt_with_fresh_noise_is_paid_for_again_and_once(
    rig: AccessRig, state: TaskState
) -> None:
    await admitted(rig)
    await try_round(rig, 0, state=state)
    await pay(rig, 1)
    await pay(rig, 1)
    first, again = await rig.entries()
    expected = attempt_cost(PRIVATE_PLAN.canonical_json(), dataset())
    assert expected is not None
    assert (again.line.kind, again.line.cost, again.line.round, again.line.attempt) == (
        LedgerKind.ATTEMPT,
        expected[1],
        1,
        1,
    )
    assert again.line.cost.epsilon < first.line.cost.epsilon  # type: ignore[operator]
    await pay(rig, 0, number=2)
    assert len(await rig.entries()) == 2


async def test_an_attempt_that_failed_before_anything_left_costs_nothing_more(rig: AccessRig) -> None:
    await admitted(rig)
    await try_round(rig, 0, state=TaskState.FAILED)
    await pay(rig, 1)
    assert len(await rig.entries()) == 1


@pytest.mark.parametrize("short", ["budget", "approval"])
async def test_another_attempt_is_refused_when_there_is_nothing_left_for_it(
    rig: AccessRig, short: str
) -> None:
    if short == "budget":
        await admitted(rig)
        [entry] = await rig.entries()
        await rig.set_budget(entry.line.cost)
    else:
        await rig.access.plan_proposed(rig.people.proposal(PRIVATE_PLAN))
        await rig.decide(STUDY, Decision(True, PRIVATE_PLAN.hash))
    await try_round(rig, 0, state=TaskState.DONE)
    with pytest.raises(FailedPrecondition, match=r"does not allow this|does not grant as much"):
        await pay(rig, 1)
    assert len(await rig.entries()) == 1


async def test_without_privacy_a_repeated_round_tells_nothing_new_and_costs_nothing(rig: AccessRig) -> None:
    await rig.access.plan_proposed(rig.people.proposal())
    await rig.decide(STUDY)
    order = train_order(1)
    await rig.database.start_task(order)
    await rig.database.mark_sending(order.key, upload_id="upload-1")
    await rig.access.pay_for_attempt(study_id=STUDY, plan_hash=PLAN.hash, number=1, attempt=1)
    assert len(await rig.entries()) == 1
