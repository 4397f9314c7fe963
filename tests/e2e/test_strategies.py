"""Strategies over real processes: the same versions, bit for bit, as in one process, whoever is killed."""

from __future__ import annotations

import asyncio
import stat
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from typer.testing import CliRunner

from libs.cli.client.session import Session, open_session
from libs.cli.client.studies import fetch_weights, require_ready, watch
from libs.cli.demo.material import DATASET_NAME, Material
from libs.cli.local_cluster import LocalCluster
from libs.cli.main import app
from libs.data.dataset import load_dataset
from libs.fl.simulate import Simulation, simulate
from libs.fl.strategy_parameters import Strategy
from libs.fl.training_plan import TrainingPlan
from libs.fl.versions import read_versions
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from tests.e2e.support import HOSPITALS, begin_study, publish, small_material, small_plan
from tests.fakes.strategy_plans import NEEDS

pytestmark = [pytest.mark.slow, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[LocalCluster]:
    overrides = {"coordinator": {"reattach_grace_s": 30.0}}
    folder = tmp_path_factory.mktemp("strategies")
    with LocalCluster(folder, hospitals=HOSPITALS, overrides=overrides) as running:
        material: Material = small_material()
        asyncio.run(publish(running, material))
        yield running


@pytest.fixture
async def scientist(cluster: LocalCluster) -> AsyncIterator[Session]:
    async with open_session(cluster.profile("scientist")) as session:
        yield session


def plan_of(strategy: Strategy, **changes: Any) -> TrainingPlan:
    """All hospitals in every round: a sum over fewer is scaled with random rounding."""
    return small_plan(strategy=strategy, quorum=len(HOSPITALS), **{**NEEDS[strategy], **changes})


def simulated(cluster: LocalCluster, plan: TrainingPlan) -> Simulation:
    parts = {
        name: load_dataset(cluster.folder(f"hospital-{name}") / "data" / DATASET_NAME, size=plan.image_size)
        for name in cluster.hospitals
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        return simulate(plan, parts)
    finally:
        torch.set_num_threads(threads)


def kept(cluster: LocalCluster, name: str) -> list[Any]:
    return sorted(cluster.folder(f"hospital-{name}").glob("**/studies/*/*.npz"))


async def hold(
    cluster: LocalCluster,
    scientist: Session,
    plan: TrainingPlan,
    *,
    after_round: int = 1,
    act: Callable[[], None] = lambda: None,
) -> coordinator_pb2.Study:
    """Hold the study to its end, calling `act` once when so many rounds are done."""
    last, done = await begin_study(cluster, scientist, plan), False
    async for state in watch(scientist, last.study_id):
        last = state
        if not done and state.rounds_done >= after_round:
            done = True
            await asyncio.to_thread(act)
    assert done
    return require_ready(last)


async def require_equal(
    cluster: LocalCluster, scientist: Session, plan: TrainingPlan, study: coordinator_pb2.Study
) -> None:
    """Every version that a reader can fetch means what the simulation's does."""
    expected = simulated(cluster, plan)
    assert study.rounds_done == len(expected.rounds)
    for number in range(len(expected.versions)):
        found = await fetch_weights(scientist, model_id=f"{study.study_id}/round-{number}", plan=plan)
        assert np.array_equal(found, read_versions(plan, expected.versions[: number + 1]))


async def test_scaffold_is_the_simulation_bit_for_bit_and_leaves_nothing_at_the_hospitals(
    cluster: LocalCluster, scientist: Session
) -> None:
    plan, seen = plan_of(Strategy.SCAFFOLD, local_epochs=3), list[int]()

    def look() -> None:
        seen.extend(stat.S_IMODE(path.stat().st_mode) for name in HOSPITALS for path in kept(cluster, name))

    study = await hold(cluster, scientist, plan, act=look)
    await require_equal(cluster, scientist, plan, study)
    assert set(seen) == {0o600}
    await _until(lambda: not any(kept(cluster, name) for name in HOSPITALS))


async def test_training_stops_when_the_hospitals_say_so_and_the_best_round_is_released(
    cluster: LocalCluster, scientist: Session
) -> None:
    # No round can improve on the first by so much: after two more the hospitals stop.
    plan = plan_of(Strategy.FEDAVG, rounds=9, early_stopping={"patience": 2, "min_delta": 100.0})
    study = await hold(cluster, scientist, plan)
    assert (study.rounds_done, study.rounds_planned, study.final_round) == (3, 9, 1)
    assert "round 1, whose version is released" in study.stopped_because
    expected = simulated(cluster, plan)
    assert (expected.stopped_early, expected.final_round) == (True, 1)
    released, third = [
        await asyncio.to_thread(_download, cluster, study.study_id, *r) for r in ([], ["--round=3"])
    ]
    for file, number in ((released, 1), (third, 3)):
        module = expected.module(number)
        assert all(torch.equal(value, file[name]) for name, value in module.state_dict().items())
    await require_equal(cluster, scientist, plan, study)


@pytest.mark.parametrize("strategy", [Strategy.FEDPROX, Strategy.FEDYOGI])
async def test_other_strategies_are_the_simulation_too(
    cluster: LocalCluster, scientist: Session, strategy: Strategy
) -> None:
    plan = plan_of(strategy)
    await require_equal(cluster, scientist, plan, await hold(cluster, scientist, plan))


@pytest.mark.parametrize("strategy", [Strategy.SCAFFOLD, Strategy.FEDBN, Strategy.FEDADAM])
@pytest.mark.parametrize("everything", [False, True], ids=["a-hospital", "everything"])
async def test_killed_and_restarted_in_mid_study_the_model_is_the_same(
    cluster: LocalCluster, scientist: Session, strategy: Strategy, everything: bool
) -> None:
    """What a hospital keeps from round to round is on its disk, and what a round repeats starts from it."""
    plan = plan_of(strategy, rounds=4, local_epochs=6, seed=3 + everything)
    victims = [f"hospital-{HOSPITALS[2]}"]
    if everything:
        victims = ["coordinator", *(f"party-{i}" for i in range(3)), *(f"hospital-{n}" for n in HOSPITALS)]

    def kill() -> None:
        for victim in victims:
            cluster.kill(victim)
        for victim in victims:
            cluster.restart(victim)

    study = await _hold_through(cluster, scientist, plan, kill)
    await require_equal(cluster, scientist, plan, study)


async def _hold_through(
    cluster: LocalCluster, scientist: Session, plan: TrainingPlan, kill: Callable[[], None]
) -> coordinator_pb2.Study:
    """As `hold`, but the coordinator that tells may be gone for a while."""
    study, killed = await begin_study(cluster, scientist, plan), False
    async with asyncio.timeout(200):
        while True:
            async with open_session(cluster.profile("scientist")) as session:
                try:
                    async for state in watch(session, study.study_id):
                        if not killed and state.rounds_done >= 2:
                            killed = True
                            await asyncio.to_thread(kill)
                            break
                        study = state
                    else:
                        assert killed
                        return require_ready(study)
                except Exception as error:  # a stream's end, in whichever words
                    if not killed:
                        raise AssertionError("the study ended before anybody was killed") from error
            await asyncio.sleep(0.3)


def _download(cluster: LocalCluster, study_id: str, *options: str) -> dict[str, torch.Tensor]:
    """What `trefoil study weights` writes."""
    out = cluster.profile("scientist").parent / f"weights{len(options)}.safetensors"
    command = [
        "study",
        "weights",
        study_id,
        str(out),
        "--profile",
        str(cluster.profile("scientist")),
        *options,
    ]
    result = CliRunner().invoke(app, command)
    assert result.exit_code == 0, result.output
    assert stat.S_IMODE(out.stat().st_mode) == 0o600
    return load_file(out)


async def _until(holds: Callable[[], bool], *, seconds: float = 15.0) -> None:
    for _ in range(int(10 * seconds)):
        if await asyncio.to_thread(holds):
            return
        await asyncio.sleep(0.1)
    raise AssertionError("it never came to that")
