"""What strategies and early stopping ask of the node between an order and a contribution."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.fl.metrics import RoundMetrics
from libs.fl.strategies.strategy import Opened
from libs.fl.training_plan import TrainingPlan
from services.hospital_node.access.requests import Decision
from services.hospital_node.domain import CalibrateOrder, Order, TaskKey, TaskKind
from services.hospital_node.inbox import NodeInbox
from services.hospital_node.tasks import TaskRunner
from services.hospital_node.worker.study_files import StudyFiles, folder_of
from tests.fakes.access import FREELY, AccessRig
from tests.fakes.hospital_ports import (
    PLAN,
    AddingParties,
    FixedClock,
    RememberingAnnouncer,
    ScriptedWorker,
    train_order,
)

STUDY = "study-7"
ADAPTIVE: Mapping[str, Any] = {"strategy": "fedadam", "server_optimizer": {}}
STOPPING: Mapping[str, Any] = {"rounds": 9, "early_stopping": {"patience": 2}}


@dataclass(frozen=True)
class Node:
    tasks: TaskRunner
    rig: AccessRig
    announcer: RememberingAnnouncer
    parties: AddingParties
    worker: ScriptedWorker
    work_dir: Path
    plan: TrainingPlan

    async def obey(self, order: Order) -> None:
        self.tasks.accept(order)
        await asyncio.gather(*self.tasks._running.values(), return_exceptions=True)

    async def train(self, number: int) -> None:
        order = train_order(number, plan_hash=self.plan.hash, base=f"{STUDY}/round-{number - 1}")
        await self.obey(replace(order, key=TaskKey(STUDY, TaskKind.TRAIN, number)))

    async def calibrate(self, version: int) -> None:
        key = TaskKey(STUDY, TaskKind.CALIBRATE, 0)
        deadline = train_order(1).deadline
        await self.obey(CalibrateOrder(key, self.plan.hash, f"{STUDY}/round-{version}", deadline))


async def node_with(rig: AccessRig, work_dir: Path, changes: Mapping[str, Any]) -> Node:
    plan = TrainingPlan.checked({**PLAN.model_dump(), **changes})
    announcer, parties, worker = RememberingAnnouncer(), AddingParties(), ScriptedWorker()
    tasks = TaskRunner(
        hospital="alpha",
        store=rig.database,
        access=rig.access,
        announcer=announcer,
        parties=parties,
        worker=worker,
        data_roots=[Path("/data")],
        work_dir=work_dir,
        clock=FixedClock(),
    )
    await rig.access.plan_proposed(rig.people.proposal(plan, study_id=STUDY))
    await rig.decide(STUDY, Decision(approve=True, granted=FREELY, plan_hash=plan.hash))
    return Node(tasks, rig, announcer, parties, worker, work_dir, plan)


def losses(*values: float) -> dict[int, RoundMetrics]:
    return {
        number: RoundMetrics(validation_loss_sum=value, validation_samples=1)
        for number, value in enumerate(values, start=1)
    }


async def test_a_server_optimiser_reads_all_versions_that_it_has_not_kept(
    rig: AccessRig, tmp_path: Path
) -> None:
    node = await node_with(rig, tmp_path, ADAPTIVE)
    await node.train(1)
    assert node.worker.jobs == ["read 0", "train"]
    StudyFiles(folder_of(tmp_path, STUDY)).keep_opened(
        Opened(0, np.zeros(1), np.zeros(1), np.zeros(0), (np.zeros(1), np.zeros(1)))
    )
    await node.train(3)
    assert node.worker.jobs[2:] == ["read 1", "read 2", "train"]
    assert set(node.parties.fetched) == {f"{STUDY}/round-{number}" for number in (0, 1, 2)}


async def test_other_strategies_read_the_one_version_that_they_train_from(
    rig: AccessRig, tmp_path: Path
) -> None:
    node = await node_with(rig, tmp_path, {})
    await node.train(3)
    assert (node.worker.jobs, node.parties.fetched) == (["train"], [f"{STUDY}/round-2"])


async def test_a_hospital_says_stop_instead_of_training_once_its_rule_says_so(
    rig: AccessRig, tmp_path: Path
) -> None:
    node = await node_with(rig, tmp_path, STOPPING)
    node.parties.measured.update(losses(0.5, 0.4, 0.6))
    await node.train(4)
    assert node.worker.jobs == ["train"]
    node.parties.measured.update(losses(0.5, 0.4, 0.6, 0.7))
    await node.train(5)
    await node.train(5)
    key = TaskKey(STUDY, TaskKind.TRAIN, 5)
    assert node.announcer.of("stop") == [("stop", key, 2)] * 2
    assert node.worker.jobs == ["train"]
    assert len(node.parties.dealt) == 1


@pytest.mark.parametrize(("version", "done"), [(2, True), (9, True), (4, False), (1, False)])
async def test_only_the_version_that_the_rule_ends_with_is_calibrated(
    rig: AccessRig, tmp_path: Path, version: int, done: bool
) -> None:
    node = await node_with(rig, tmp_path, STOPPING)
    node.parties.measured.update(losses(0.5, 0.4, 0.6, 0.7, 0.1, 0.1, 0.1, 0.1, 0.1))
    await node.calibrate(version)
    assert node.worker.jobs == (["calibrate"] if done else [])
    assert bool(node.announcer.of("failed")) is not done


async def test_without_a_rule_only_the_plans_last_version_is_calibrated(
    rig: AccessRig, tmp_path: Path
) -> None:
    node = await node_with(rig, tmp_path, {})
    await node.calibrate(2)
    assert node.worker.jobs == []
    await node.calibrate(3)
    assert node.worker.jobs == ["calibrate"]


async def test_the_end_of_a_study_deletes_what_was_kept_of_it(rig: AccessRig, tmp_path: Path) -> None:
    node = await node_with(rig, tmp_path, {})
    StudyFiles(folder_of(tmp_path, STUDY)).keep_own(1, {"control": np.zeros(1)}, counted_round=0)
    assert await rig.access.living_studies() == {STUDY}
    inbox = NodeInbox(access=rig.access, tasks=node.tasks, name_parties=lambda _addresses: None)
    await inbox.study_ended(STUDY)
    assert not folder_of(tmp_path, STUDY).exists()
    assert await rig.access.living_studies() == set()
