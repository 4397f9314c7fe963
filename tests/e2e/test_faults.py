"""Processes that are killed while they work, and what the others make of it."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
import torch

from libs.cli.client import predictions
from libs.cli.client.models import import_model
from libs.cli.client.session import Session, open_session
from libs.cli.client.studies import fetch_weights, model_of, require_ready, watch
from libs.cli.demo.material import DATASET_NAME, Material
from libs.cli.local_cluster import LocalCluster
from libs.core.errors import InvalidInput, Unavailable
from libs.data.dataset import load_dataset
from libs.data.phantom import make_phantoms
from libs.data.transforms import to_model_input
from libs.fl.evaluation import predict_logits
from libs.fl.local_training import train_locally, training_seed
from libs.fl.training_plan import TrainingPlan
from libs.fl.update_encoding import decode_vector, encode_update, encode_weights
from libs.fl.vectorise import load_state_vector, state_vector
from libs.rpc import predict_client
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from tests.e2e.support import HOSPITALS, SIZE, begin_study, publish, small_material, small_plan

pytestmark = pytest.mark.timeout(240)

PREDICTION_DEADLINE_S = 10.0


@pytest.fixture(scope="module")
def material() -> Material:
    return small_material()


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory, material: Material) -> Iterator[LocalCluster]:
    overrides = {"coordinator": {"prediction_deadline_s": PREDICTION_DEADLINE_S, "reattach_grace_s": 1.0}}
    with LocalCluster(tmp_path_factory.mktemp("faults"), hospitals=HOSPITALS, overrides=overrides) as running:
        asyncio.run(publish(running, material))
        yield running


@pytest.fixture
async def scientist(cluster: LocalCluster) -> AsyncIterator[Session]:
    async with open_session(cluster.profile("scientist")) as session:
        yield session


async def _follow(
    session: Session, study: coordinator_pb2.Study, *, act_when: Any, act: Any
) -> coordinator_pb2.Study:
    """Watch until the study ends; call `act` once, at the first state for which `act_when` is true."""
    done = False
    last = study
    async for state in watch(session, study.study_id):
        last = state
        if not done and act_when(state):
            done = True
            await asyncio.to_thread(act)
    assert done, "the moment to act never came"
    return last


def recompute(
    cluster: LocalCluster, plan: TrainingPlan, survivors_of_round: list[set[str]]
) -> np.ndarray[Any, Any]:
    """Federated averaging in clear over the given survivors, with the hospitals' own seeds and files."""
    parts = {
        name: load_dataset(cluster.folder(f"hospital-{name}") / "data" / DATASET_NAME, size=plan.image_size)
        for name in cluster.hospitals
    }
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    module = model_of(plan)
    images = sum(len(part) for part in parts.values())
    weights = encode_weights(state_vector(module), scale_bits=plan.scale_bits)
    for number, survivors in enumerate(survivors_of_round, start=1):
        total = np.zeros(len(weights), np.int64)
        for name in survivors:
            load_state_vector(module, decode_vector(weights, scale_bits=plan.scale_bits))
            seed = training_seed(plan.seed, hospital=name, round_number=number)
            update = train_locally(module, parts[name], plan, round_number=number, seed=seed).update
            share = Fraction(len(parts[name]), images)
            # Rounded as the hospital does it: training amplifies even the last bit over the rounds.
            total += encode_update(
                update, weight=share, scale_bits=plan.scale_bits, bound=plan.update_bound
            ).view(np.int32)
        present = Fraction(sum(len(parts[name]) for name in survivors), images)
        weights = weights + np.rint(total / float(present)).astype(np.int64).astype(np.uint32)
    torch.set_num_threads(threads)
    return decode_vector(weights, scale_bits=plan.scale_bits)


def survivors_of(study: coordinator_pb2.Study) -> list[set[str]]:
    """Names of the hospitals that counted, for each training round."""
    return [
        {identity.rpartition("/")[2] for identity in number.survivor_identities}
        for number in study.rounds[: study.rounds_planned]
    ]


async def test_a_hospital_killed_in_mid_round_leaves_the_average_of_the_others(
    cluster: LocalCluster, scientist: Session
) -> None:
    # Enough epochs that the victim is still training when it is killed.
    plan = small_plan(rounds=1, local_epochs=25, learning_rate=0.01, seed=1)
    study = await begin_study(cluster, scientist, plan)

    def south_is_training(state: coordinator_pb2.Study) -> bool:
        return any(
            member.hospital_name == "south" and member.phase == coordinator_pb2.PHASE_TRAINING
            for member in state.members
        )

    try:
        study = await _follow(
            scientist, study, act_when=south_is_training, act=lambda: cluster.kill("hospital-south")
        )
    finally:
        await asyncio.to_thread(cluster.restart, "hospital-south")
    require_ready(study)
    assert survivors_of(study) == [{"north", "east"}]
    found = await fetch_weights(scientist, model_id=study.latest_model_id, plan=plan)
    expected = recompute(cluster, plan, survivors_of(study))
    alike = recompute(cluster, plan, [{"north", "east", "south"}])
    assert np.abs(found - expected).max() < 1e-4
    assert np.abs(found - alike).max() > 1e-3


async def test_a_party_restarted_between_rounds_still_has_its_shares(
    cluster: LocalCluster, scientist: Session
) -> None:
    # All of them count in every round: a sum over fewer is scaled with random rounding, and the next round's
    # training amplifies even the last bit.
    plan = small_plan(rounds=3, local_epochs=4, seed=2, quorum=len(HOSPITALS))
    study = await begin_study(cluster, scientist, plan)

    def restart() -> None:
        cluster.kill("party-1")
        cluster.restart("party-1")

    study = await _follow(scientist, study, act_when=lambda state: state.rounds_done >= 1, act=restart)
    require_ready(study)
    found = await fetch_weights(scientist, model_id=study.latest_model_id, plan=plan)
    assert np.abs(found - recompute(cluster, plan, survivors_of(study))).max() < 1e-4


@dataclass(frozen=True)
class Deployed:
    """A model that was dealt to the parties, questions for it, and the answers in clear."""

    model_id: str
    images: np.ndarray[Any, np.dtype[np.float32]]
    clear: np.ndarray[Any, Any]


@pytest.fixture(scope="module")
def deployed(cluster: LocalCluster, material: Material) -> Deployed:
    module = model_of(small_plan(seed=3))

    async def bring() -> str:
        async with open_session(cluster.profile("scientist")) as session:
            calibration = to_model_input(make_phantoms(64, size=SIZE, seed=8).images)
            use = types_pb2.ModelUse(asker_identities=["spiffe://trefoil.local/client/clinic"])
            imported = await import_model(
                session, name="faults", module=module, calibration=calibration, use=use
            )
            return imported.model_id

    return Deployed(
        model_id=asyncio.run(bring()),
        images=to_model_input(material.test.images).numpy(),
        clear=predict_logits(module, material.test.images).numpy(),
    )


async def test_an_evaluator_killed_in_mid_prediction_is_told_in_time_and_the_next_one_works(
    cluster: LocalCluster, deployed: Deployed, monkeypatch: pytest.MonkeyPatch
) -> None:
    mask_input = predict_client.mask_input
    async with open_session(cluster.profile("clinic")) as clinic:
        first = await predictions.predict(clinic, model_id=deployed.model_id, images=deployed.images)
        # Roles rotate: the next question's second evaluator is this one's dealer.
        victim = f"party-{first.dealer}"

        def kill_then_mask(*args: Any, **kwargs: Any) -> Any:
            """Both evaluators gave their masks and wait for the input: now one dies."""
            cluster.kill(victim)
            return mask_input(*args, **kwargs)

        monkeypatch.setattr(predict_client, "mask_input", kill_then_mask)
        started = time.monotonic()
        with pytest.raises(Unavailable) as told:
            await predictions.predict(clinic, model_id=deployed.model_id, images=deployed.images)
        assert time.monotonic() - started < PREDICTION_DEADLINE_S + 2
        assert "again" in str(told.value)
        monkeypatch.setattr(predict_client, "mask_input", mask_input)
        await asyncio.to_thread(cluster.restart, victim)
        again = await predictions.predict(clinic, model_id=deployed.model_id, images=deployed.images)
    assert np.abs(again.logits - deployed.clear).max() <= 0.02
    assert again.computation_id != first.computation_id


async def test_an_image_with_nan_is_refused_on_the_clinics_side_and_the_next_one_works(
    cluster: LocalCluster, deployed: Deployed
) -> None:
    broken = deployed.images[:1].copy()
    broken[0, 0, 3, 3] = np.nan
    async with open_session(cluster.profile("clinic")) as clinic:
        with pytest.raises(InvalidInput, match="not numbers"):
            await predictions.predict(clinic, model_id=deployed.model_id, images=broken)
        again = await predictions.predict(clinic, model_id=deployed.model_id, images=deployed.images[:1])
    assert np.abs(again.logits - deployed.clear[:1]).max() <= 0.02
