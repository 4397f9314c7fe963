"""A study over real services in which the parties add noise for the privacy of whole hospitals."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest
from rich.console import Console

from libs.cli.client.session import open_session
from libs.cli.demo import journey
from libs.cli.local_cluster import LocalCluster
from libs.fl.round_rules import noise_std_of
from libs.fl.vectorise import state_vector
from libs.fl.versions import first_module
from tests.e2e.support import HOSPITALS, begin_study, publish, small_material, small_plan

pytestmark = [pytest.mark.timeout(500), pytest.mark.slow]

PLAN = small_plan(
    model="small_cnn_private",
    learning_rate=0.01,
    privacy={"target_epsilon": 8.0, "delta": 1e-3, "unit": "hospital", "largest_weight": 0.4},
    contribution_check={"max_norm": 0.2},
)


def test_a_study_ends_with_the_noise_that_its_plan_says(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, hospitals=HOSPITALS) as cluster:
        trained = asyncio.run(cluster.guard(_study(cluster)))
    moved = state_vector(trained.module).astype(np.float64) - state_vector(first_module(PLAN))
    # Two rounds, three parties: hospitals alone could not move the model by more than 2 * 0.2.
    noise = noise_std_of(PLAN) / 2**PLAN.scale_bits * np.sqrt(2 * 1.5 * moved.size)
    assert noise > 1
    assert 0.8 * noise < np.linalg.norm(moved) < 1.2 * noise + 0.4
    assert all(not metrics.train_samples for metrics in trained.metrics)


async def _study(cluster: LocalCluster) -> journey.Trained:
    await publish(cluster, small_material())
    async with open_session(cluster.profile("scientist")) as scientist:
        study = await begin_study(cluster, scientist, PLAN)
        study = await journey.train(scientist, study, Console(quiet=True))
        return await journey.open_results(scientist, study=study, plan=PLAN)
