"""Orders against consent: nothing in an order is believed, and nothing is done twice."""

from __future__ import annotations

import asyncio
import re
from dataclasses import dataclass, replace
from datetime import timedelta
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest

from libs.core.errors import InvalidInput, Unavailable
from libs.dp.budget import total
from libs.fl.metrics import METRICS_LENGTH
from libs.fl.training_plan import Download, ModelAccess, TrainingPlan
from libs.mpc.ring import Ring
from services.hospital_node.access.domain import LedgerKind
from services.hospital_node.access.requests import Decision
from services.hospital_node.adapters.database import Database
from services.hospital_node.adapters.dataset_store import DatasetStore
from services.hospital_node.adapters.transactions import Transactions
from services.hospital_node.domain import (
    CalibrateOrder,
    ModelUse,
    Order,
    ReleaseOrder,
    Task,
    TaskKey,
    TaskKind,
    TaskState,
    Terms,
    TrainOrder,
)
from services.hospital_node.tasks import TaskRunner
from tests.fakes.access import DANA, FREELY, PRIVATE_PLAN, AccessRig
from tests.fakes.hospital_ports import (
    HOSPITALS,
    NOW,
    PLAN,
    STUDY,
    AddingParties,
    FixedClock,
    RememberingAnnouncer,
    ScriptedWorker,
    train_order,
    unshelve,
)

LATER = NOW + timedelta(minutes=5)


@dataclass
class Node:
    tasks: TaskRunner
    rig: AccessRig
    store: Database
    datasets: DatasetStore
    announcer: RememberingAnnouncer
    parties: AddingParties
    worker: ScriptedWorker

    async def obey(self, order: Order) -> None:
        self.tasks.accept(order)
        await asyncio.gather(*self.tasks._running.values(), return_exceptions=True)

    def failure(self) -> tuple[object, object]:
        _, _, code, message = self.announcer.of("failed")[-1]
        return code, message


@pytest.fixture
async def node(rig: AccessRig, tmp_path: Path) -> Node:
    announcer, parties, worker = RememberingAnnouncer(), AddingParties(), ScriptedWorker()
    store = rig.database
    tasks = TaskRunner(
        hospital="alpha",
        store=store,
        access=rig.access,
        announcer=announcer,
        parties=parties,
        worker=worker,
        data_roots=[Path("/data")],
        work_dir=tmp_path / "work",
        clock=FixedClock(),
    )
    await rig.access.plan_proposed(rig.people.proposal())
    tomorrow = NOW + timedelta(days=1)
    await rig.decide(STUDY, Decision(approve=True, granted=FREELY, plan_hash=PLAN.hash, expires_at=tomorrow))
    return Node(tasks, rig, store, rig.datasets, announcer, parties, worker)


def release_order(number: int = 4) -> ReleaseOrder:
    return ReleaseOrder(
        key=TaskKey(study_id=STUDY, kind=TaskKind.RELEASE, round=number),
        plan_hash=PLAN.hash,
        base_model_id=f"{STUDY}/round-3",
        bound_bits={"conv1": 3},
        compiled_plan_hash="f" * 64,
        weight=Fraction(1, 3),
        deadline=LATER,
    )


def calibrate_order(plan_hash: str = PLAN.hash) -> CalibrateOrder:
    return CalibrateOrder(
        key=TaskKey(study_id=STUDY, kind=TaskKind.CALIBRATE, round=0),
        plan_hash=plan_hash,
        base_model_id=f"{STUDY}/round-3",
        deadline=LATER,
    )


async def test_an_approved_round_is_trained_dealt_and_reported(node: Node) -> None:
    await node.obey(train_order())
    [(key, vector, ring, upload_id)] = node.parties.dealt
    assert (key, ring) == (train_order().key, Ring.RING_32)
    assert vector.tolist() == [0, 1, 2, 3]
    [(_, done)] = node.announcer.of("done")
    assert isinstance(done, Task)
    assert (done.state, done.upload_id) == (TaskState.DONE, upload_id)


READERS = (DANA.uri, *HOSPITALS)


async def test_a_contribution_is_sent_on_the_terms_that_the_owner_approved(node: Node) -> None:
    await node.obey(train_order())
    assert node.parties.terms == [
        Terms(
            PLAN.quorum,
            HOSPITALS,
            READERS,
            metrics_readers=READERS,
            use=ModelUse(),
            weight=Fraction(1, 3),
            metrics_length=METRICS_LENGTH,
        )
    ]


async def test_a_plan_whose_model_nobody_may_download_is_read_by_the_hospitals_that_train_it(
    rig: AccessRig, node: Node
) -> None:
    plan = PLAN.model_copy(update={"model_access": ModelAccess(download=Download.NOBODY)})
    await approve_another(rig, plan)
    order = train_order(plan_hash=plan.hash, base="study-2/round-0")
    await node.obey(replace(order, key=TaskKey("study-2", TaskKind.TRAIN, 1)))
    [terms] = node.parties.terms
    assert (terms.readers, terms.metrics_readers) == (HOSPITALS, READERS)


async def test_a_released_model_is_read_by_nobody_and_asked_by_whom_the_plan_names(
    rig: AccessRig, node: Node
) -> None:
    clinic = "spiffe://trefoil.local/client/clinic"
    plan = PLAN.model_copy(update={"model_access": ModelAccess(ask=(clinic,), max_predictions=5)})
    await approve_another(rig, plan)
    key = TaskKey("study-2", TaskKind.RELEASE, 4)
    await node.obey(replace(release_order(), key=key, plan_hash=plan.hash, base_model_id="study-2/round-3"))
    assert node.parties.terms == [
        Terms(
            PLAN.quorum,
            HOSPITALS,
            readers=(),
            metrics_readers=(),
            weight=Fraction(1, 3),
            use=ModelUse(anyone=False, askers=(clinic, DANA.uri), max_predictions=5),
            metrics_length=0,
            compiled_plan_hash="f" * 64,
            result_model_id="study-2/released",
        )
    ]


async def approve_another(rig: AccessRig, plan: TrainingPlan) -> None:
    await rig.access.plan_proposed(rig.people.proposal(plan, study_id="study-2"))
    await rig.decide("study-2", Decision(approve=True, granted=FREELY, plan_hash=plan.hash))


@pytest.mark.parametrize(
    "order",
    [
        train_order(plan_hash="0" * 64),
        train_order(4),
        train_order(base="another-study/round-0"),
        calibrate_order(plan_hash="0" * 64),
        release_order(3),
    ],
    ids=["unapproved hash", "round beyond the plan", "another study's model", "calibration", "early release"],
)
async def test_an_order_that_the_owner_did_not_approve_is_refused(node: Node, order: Order) -> None:
    await node.obey(order)
    assert node.failure()[0] in {"failed_precondition", "invalid_input"}
    assert (node.worker.jobs, node.parties.dealt) == ([], [])


async def test_an_order_after_the_dataset_was_withdrawn_is_refused(node: Node) -> None:
    await unshelve(node.datasets, "chest")
    await node.obey(train_order())
    assert node.failure()[0] == "failed_precondition"
    assert node.parties.dealt == []


async def test_a_round_that_was_done_is_reported_again_but_not_done_again(node: Node) -> None:
    await node.obey(train_order())
    await node.obey(train_order())
    assert node.worker.jobs == ["train"]
    assert len(node.parties.dealt) == 1
    assert len(node.announcer.of("done")) == 2


async def test_an_older_round_is_refused_after_a_newer_one(node: Node) -> None:
    await node.obey(train_order(2))
    await node.obey(train_order(1))
    assert node.failure()[0] == "failed_precondition"
    assert node.worker.jobs == ["train"]


async def test_a_new_attempt_from_another_version_of_the_model_is_refused(node: Node) -> None:
    await node.obey(train_order(1))
    await node.obey(train_order(1, attempt=1, base=f"{STUDY}/round-7"))
    assert node.failure()[0] == "failed_precondition"
    assert len(node.parties.dealt) == 1


async def test_a_new_attempt_from_the_same_version_is_sent_under_a_new_upload_id(node: Node) -> None:
    await node.obey(train_order(1))
    await node.obey(train_order(1, attempt=1))
    assert len({upload_id for *_, upload_id in node.parties.dealt}) == 2


async def test_with_privacy_a_new_attempt_that_cannot_be_paid_for_is_refused(
    rig: AccessRig, node: Node
) -> None:
    await rig.access.plan_proposed(rig.people.proposal(PRIVATE_PLAN, study_id="study-2"))
    await rig.decide("study-2", Decision(True, PRIVATE_PLAN.hash))
    order = train_order(plan_hash=PRIVATE_PLAN.hash, base="study-2/round-0")
    for attempt in (0, 1):
        await node.obey(replace(order, key=TaskKey("study-2", TaskKind.TRAIN, 1, attempt)))
    assert node.failure()[0] == "failed_precondition"
    assert len(node.parties.dealt) == 1


async def test_a_worker_crash_fails_the_task_and_the_next_attempt_at_it_works(node: Node) -> None:
    node.worker.error = Unavailable("The worker stopped.")
    await node.obey(train_order())
    assert node.failure() == ("unavailable", "The worker stopped.")
    node.worker.error = None
    await node.obey(train_order())
    assert len(node.parties.dealt) == 1


async def test_the_text_of_an_unforeseen_error_stays_at_the_hospital(node: Node) -> None:
    node.worker.error = RuntimeError("patient 17")
    await node.obey(train_order())
    code, message = node.failure()
    assert code == "internal"
    assert "17" not in str(message)


async def test_the_upload_id_is_stored_before_the_first_share_leaves(
    node: Node, transactions: Transactions
) -> None:
    stored: list[str] = []

    def look() -> None:
        with transactions.engine.connect() as connection:
            stored.extend(connection.exec_driver_sql("select state, upload_id from tasks").one())

    node.parties.before_dealing = look
    await node.obey(train_order())
    assert stored == ["sending", node.parties.dealt[0][3]]


async def test_a_failure_while_dealing_ends_this_attempt_for_good(node: Node) -> None:
    def fail() -> None:
        raise Unavailable("A party is down.")

    node.parties.before_dealing = fail
    await node.obey(train_order())
    node.parties.before_dealing = lambda: None
    await node.obey(train_order())
    assert "may have left" in str(node.failure()[1])
    assert node.parties.dealt == []


async def test_a_task_stops_at_the_deadline(node: Node) -> None:
    node.worker.hangs = True
    await node.obey(train_order(deadline=NOW + timedelta(seconds=0.05)))
    assert node.failure()[0] == "deadline_exceeded"


async def test_the_end_of_a_study_stops_its_task_and_no_other_order_is_obeyed(node: Node) -> None:
    node.worker.hangs = True
    node.tasks.accept(train_order())
    await asyncio.wait_for(node.worker.begun.wait(), 10)
    assert STUDY in node.tasks.activity
    await node.rig.access.study_ended(STUDY)
    await node.tasks.cancel_study(STUDY)
    assert node.tasks.activity == "idle"
    node.worker.hangs = False
    await node.obey(train_order(2))
    assert node.failure()[0] == "failed_precondition"
    assert node.parties.dealt == []


async def withdraw(node: Node, how: str) -> None:
    if how == "revoked":
        await node.rig.revoke(STUDY)
    elif how == "expired":
        node.rig.clock.moment += timedelta(days=2)
    else:
        await unshelve(node.datasets, "chest")


@pytest.mark.parametrize("how", ["revoked", "expired", "data set withdrawn"])
async def test_withdrawing_consent_stops_the_task_that_runs_and_the_one_that_waits(
    node: Node, how: str
) -> None:
    node.worker.hangs = True
    node.tasks.accept(train_order())
    node.tasks.accept(train_order(2))
    await asyncio.wait_for(node.worker.begun.wait(), 10)
    await node.tasks.consent_changed()
    assert node.tasks.activity != "idle", "nothing was withdrawn"
    await withdraw(node, how)
    await node.tasks.consent_changed()
    assert node.tasks.activity == "idle"
    assert [key for _, key, *_ in node.announcer.of("failed")] == [train_order().key, train_order(2).key]
    assert node.parties.dealt == []


@pytest.mark.parametrize("how", ["revoked", "expired", "data set withdrawn"])
async def test_consent_is_asked_for_again_before_the_first_share_leaves(node: Node, how: str) -> None:
    node.worker.before_answering = lambda: withdraw(node, how)
    await node.obey(train_order())
    assert node.failure()[0] == "failed_precondition"
    assert node.parties.dealt == []


async def test_an_order_that_is_being_carried_out_is_not_begun_twice(node: Node) -> None:
    node.tasks.accept(train_order())
    await node.obey(train_order())
    assert node.worker.jobs == ["train"]
    assert len(node.announcer.of("done")) == 1


async def test_a_calibration_sends_bounds_and_no_shares_and_the_same_when_asked_again(node: Node) -> None:
    await node.obey(calibrate_order())
    await node.obey(calibrate_order())
    assert [vars(task)["bound_bits"] for _, task in node.announcer.of("done")] == [{"conv1": 3}] * 2
    assert node.worker.jobs == ["calibrate"]
    assert node.parties.dealt == []


@pytest.mark.parametrize("deaths", [1, 2])
async def test_a_calibration_whose_worker_dies_is_repeated_once(node: Node, deaths: int) -> None:
    """A round can be held again; a study that lacks a calibration ends."""

    async def die() -> None:
        if len(node.worker.jobs) <= deaths:
            raise Unavailable("The worker stopped.")

    node.worker.before_answering = die
    await node.obey(calibrate_order())
    assert node.worker.jobs == ["calibrate", "calibrate"]
    if deaths == 1:
        assert len(node.announcer.of("done")) == 1
    else:
        assert node.failure() == ("unavailable", "The worker stopped.")


async def test_a_release_is_dealt_in_the_ring_of_the_compiled_plan(node: Node) -> None:
    await node.obey(release_order())
    [(_, vector, ring, _)] = node.parties.dealt
    assert ring is Ring.RING_64
    assert vector.dtype == np.uint64


async def test_a_diverged_training_is_reported_in_the_workers_words(node: Node) -> None:
    node.worker.error = InvalidInput("Training diverged. Lower learning_rate in a new plan.")
    await node.obey(train_order())
    assert node.failure() == ("invalid_input", "Training diverged. Lower learning_rate in a new plan.")


async def private_study(rig: AccessRig) -> TrainOrder:
    """The first order for a study with noise, under an approval and a budget with room for more."""
    asked = rig.people.asked("request-2", plan=PRIVATE_PLAN, epsilon="100", delta="0.1")
    await rig.access.access_asked(asked)
    await rig.decide("request-2", Decision(True, PRIVATE_PLAN.hash))
    await rig.access.plan_proposed(rig.people.proposal(PRIVATE_PLAN, study_id="study-2"))
    order = train_order(plan_hash=PRIVATE_PLAN.hash, base="study-2/round-0")
    return replace(order, key=TaskKey("study-2", TaskKind.TRAIN, 1))


def again(order: TrainOrder, attempt: int) -> TrainOrder:
    return replace(order, key=replace(order.key, attempt=attempt))


async def spent_on(rig: AccessRig, study_id: str) -> list[tuple[LedgerKind, int]]:
    lines = [entry.line for entry in await rig.entries()]
    return [(line.kind, line.attempt) for line in lines if line.study_id == study_id]


async def test_with_noise_every_attempt_is_paid_for_once_and_old_orders_cost_nothing(
    rig: AccessRig, node: Node
) -> None:
    order = await private_study(rig)
    await node.obey(order)
    assert await spent_on(rig, "study-2") == [(LedgerKind.ADMITTED, 0)]
    await node.obey(again(order, 1))
    paid = [(LedgerKind.ADMITTED, 0), (LedgerKind.ATTEMPT, 1)]
    assert await spent_on(rig, "study-2") == paid
    for old in (order, again(order, 1)):  # done before, and said so again
        await node.obey(old)
    await node.obey(replace(order, key=replace(order.key, round=2), base_model_id="study-2/round-1"))
    await node.obey(again(order, 2))  # a round that is over
    assert node.failure()[0] == "failed_precondition"
    assert await spent_on(rig, "study-2") == paid
    assert len(node.parties.dealt) == 3


async def test_with_noise_an_attempt_beyond_the_budget_is_refused_before_training_and_without_a_figure(
    rig: AccessRig, node: Node
) -> None:
    order = await private_study(rig)
    await rig.set_budget(
        total(entry.line.cost for entry in await rig.entries() if entry.line.study_id == "study-2")
    )
    await node.obey(order)
    trained = len(node.worker.jobs)
    await node.obey(again(order, 1))
    code, message = node.failure()
    assert code == "failed_precondition"
    assert "privacy budget" in str(message)
    assert not re.search("[0-9]", str(message))
    assert len(node.worker.jobs) == trained
    assert await spent_on(rig, "study-2") == [(LedgerKind.ADMITTED, 0)]
