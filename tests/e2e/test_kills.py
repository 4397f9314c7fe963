"""Every process killed at every step of a study of five rounds: the same model as if nothing had happened.

All three hospitals have to be in each round of these studies (`quorum`), so a round that one of them missed
is held again and not closed without it. Then the weights must be the undisturbed run's to the last bit.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.cli.client.session import Session, open_session
from libs.cli.client.studies import ENDED, fetch_weights, get_study, require_ready
from libs.cli.local_cluster import LocalCluster
from libs.cli.local_cluster.cluster import ProcessDied
from libs.core.errors import TrefoilError
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from tests.e2e.support import HOSPITALS, begin_study, publish, small_material, small_plan
from tests.fakes.mortal_service import ORDER, Death

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

ROUNDS = 5
CALIBRATING, RELEASING = "calibrating", "releasing"
PLAN = small_plan(rounds=ROUNDS, seed=4, quorum=len(HOSPITALS))
STUDY_S = 500.0


class MortalCluster(LocalCluster):
    """The same services, which die when they are told to."""

    def __init__(self, root: Path, **options: Any) -> None:
        super().__init__(root, **options)
        self.services = tuple(
            replace(service, module="tests.fakes.mortal_service") for service in self.services
        )

    def restart_mortal(self, name: str) -> None:
        """Start it again. It may be told to die before it serves."""
        try:
            self.restart(name)
        except ProcessDied:
            if not Death.happened(self.folder(name)):
                raise

    def revive(self) -> None:
        """Whatever a test left: everybody lives, and nobody is to die."""
        for service in self.services:
            (self.folder(service.name) / ORDER).unlink(missing_ok=True)
            if not self.process(service.name).running:
                self.kill(service.name)
                self.restart(service.name)


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[MortalCluster]:
    overrides = {"coordinator": {"reattach_grace_s": 1.0}}
    root = tmp_path_factory.mktemp("kills")
    with MortalCluster(root, hospitals=HOSPITALS, overrides=overrides) as running:
        asyncio.run(publish(running, small_material(images=60)))
        yield running


@pytest.fixture
async def scientist(cluster: MortalCluster) -> AsyncIterator[Session]:
    await asyncio.to_thread(cluster.revive)
    async with open_session(cluster.profile("scientist")) as session:
        yield session


@dataclass(frozen=True)
class Kill:
    """A death in a round of the study (from 1 on), or in the step after its rounds."""

    step: int | str
    death: Death


def _reached(study: coordinator_pb2.Study, step: int | str) -> bool:
    """Whether the step has begun, or is the next to begin."""
    if isinstance(step, int):
        return bool(study.rounds_done >= step - 1)
    # Calibrating follows the last round at once, so what is to happen there is ordered before.
    return bool(study.rounds_done >= ROUNDS - 1 if step == CALIBRATING else study.rounds_done >= ROUNDS)


async def _run_to_its_end(
    cluster: MortalCluster, session: Session, study: coordinator_pb2.Study, kills: Sequence[Kill]
) -> coordinator_pb2.Study:
    """Order each death when its step comes, and start again who died. The study at its end."""
    waiting, ordered = list(kills), list[Kill]()

    def order_next() -> None:
        if waiting and not ordered and _reached(study, waiting[0].step):
            ordered.append(waiting.pop(0))
            ordered[0].death.order(cluster.folder(ordered[0].death.service))

    until_s = time.monotonic() + STUDY_S
    while study.state not in ENDED:
        assert time.monotonic() < until_s, f"the study did not end; it is {study}"
        order_next()
        if ordered and Death.happened(cluster.folder(ordered[0].death.service)):
            death = ordered.pop().death
            if not death.worker:
                assert await asyncio.to_thread(cluster.process(death.service).wait, 30)
                cluster.kill(death.service)
                order_next()  # before it is back, and gone on
                await asyncio.to_thread(cluster.restart_mortal, death.service)
        await asyncio.sleep(0.02)
        try:
            study = await get_study(session, study.study_id)
        except TrefoilError:
            await asyncio.sleep(0.2)  # the coordinator is the one that died
    assert not waiting, f"the moment never came: {[str(kill.death) for kill in waiting]}"
    assert not ordered, f"nobody died: {[str(kill.death) for kill in ordered]}"
    return study


@pytest.fixture(scope="module")
def undisturbed(cluster: MortalCluster) -> np.ndarray[Any, Any]:
    """The final weights of a study in which nobody died."""

    async def run() -> np.ndarray[Any, Any]:
        async with open_session(cluster.profile("scientist")) as session:
            study = await begin_study(cluster, session, PLAN)
            study = require_ready(await _run_to_its_end(cluster, session, study, []))
            return await fetch_weights(session, model_id=study.latest_model_id, plan=PLAN)

    return asyncio.run(run())


def in_turn(*deaths: Death) -> tuple[Kill, ...]:
    """One in each of the five rounds."""
    assert len(deaths) <= ROUNDS
    return tuple(Kill(number, death) for number, death in enumerate(deaths, start=1))


def party_deaths(party: str) -> tuple[Kill, ...]:
    """While opening, taking shares in, and closing on either side of what is on its disk."""
    return (
        Kill(1, Death(party, "Index.open_round", after=True)),
        Kill(2, Death(party, "Index.put_contribution")),
        Kill(2, Death(party, "Index.prepare")),
        Kill(3, Death(party, "Index.prepare", after=True)),
        Kill(4, Death(party, "Index.commit")),
        Kill(5, Death(party, "Index.commit", after=True)),
    )


EAST = "hospital-east"
CASES: dict[str, tuple[Kill, ...]] = {
    "coordinator while opening and closing": in_turn(
        Death("coordinator", "GrpcParties.open_round"),
        Death("coordinator", "GrpcParties.open_round", after=True),
        Death("coordinator", "HospitalEvents._contribution_sent", after=True),
        Death("coordinator", "GrpcParties.close_round"),
        Death("coordinator", "GrpcParties.close_round", after=True),
    ),
    "coordinator after the rounds": (
        Kill(CALIBRATING, Death("coordinator", "Releases.begin")),
        Kill(CALIBRATING, Death("coordinator", "Releases.begin", after=True)),
        Kill(CALIBRATING, Death("coordinator", "HospitalEvents._calibration", after=True)),
        Kill(RELEASING, Death("coordinator", "GrpcParties.open_round", after=True)),
        Kill(RELEASING, Death("coordinator", "Releases.finish")),
    ),
    **{f"party-{party}": party_deaths(f"party-{party}") for party in range(3)},
    "a party while releasing": (
        Kill(RELEASING, Death("party-1", "Index.put_contribution")),
        Kill(RELEASING, Death("party-1", "Index.prepare", after=True)),
        Kill(RELEASING, Death("party-1", "Index.commit")),
    ),
    "a hospital in its rounds": in_turn(
        Death(EAST, "ShareParties.fetch"),
        Death(EAST, "WorkerProcess.train", after=True),
        Death(EAST, "ShareParties.deal"),
        Death(EAST, "ShareParties.deal", after=True),
        Death(EAST, "TaskRunner._send", after=True),
    ),
    "a hospital after the rounds": (
        Kill(CALIBRATING, Death(EAST, "WorkerProcess.calibrate", after=True)),
        Kill(RELEASING, Death(EAST, "WorkerProcess.release")),
        Kill(RELEASING, Death(EAST, "ShareParties.deal")),
    ),
    "a worker": (
        Kill(2, Death("hospital-south", "Outbox.progressed", text="TRAINING", worker=True)),
        Kill(CALIBRATING, Death("hospital-south", "Outbox.progressed", text="CALIBRATING", worker=True)),
    ),
}


@pytest.mark.parametrize("case", CASES)
async def test_whoever_dies_wherever_the_weights_are_the_undisturbed_ones(
    cluster: MortalCluster, scientist: Session, undisturbed: np.ndarray[Any, Any], case: str
) -> None:
    study = await begin_study(cluster, scientist, PLAN)
    study = require_ready(await _run_to_its_end(cluster, scientist, study, CASES[case]))
    found = await fetch_weights(scientist, model_id=study.latest_model_id, plan=PLAN)
    np.testing.assert_array_equal(found, undisturbed)
    for number in study.rounds[:ROUNDS]:
        assert len(number.survivor_identities) == len(HOSPITALS)
