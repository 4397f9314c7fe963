"""Two cells as eight real processes: predictions alternate, and go on when one cell is down."""

from __future__ import annotations

import asyncio
from pathlib import Path

import numpy as np
import pytest

from libs.cli.client.models import import_model
from libs.cli.client.predictions import answer_prediction, open_prediction
from libs.cli.client.session import open_session
from libs.cli.local_cluster import LocalCluster
from libs.data.phantom import make_phantoms
from libs.data.transforms import to_model_input
from libs.models.registry import build_model

pytestmark = pytest.mark.timeout(300)


def test_predictions_alternate_between_cells_and_survive_the_loss_of_one(tmp_path: Path) -> None:
    with LocalCluster(tmp_path, hospitals=(), cells=2) as cluster:
        asyncio.run(cluster.guard(_journey(cluster)))


async def _journey(cluster: LocalCluster) -> None:
    pixels = to_model_input(make_phantoms(64, size=28, seed=0).images)
    module = build_model("small_cnn", channels=1, classes=2, size=28, seed=0)
    expected = module.eval()(pixels[:1]).detach().numpy()
    async with open_session(cluster.profile("scientist")) as scientist:
        imported = await import_model(scientist, name="cells", module=module, calibration=pixels)

        async def ask() -> str:
            """The address of party 0 in the cell that answered."""
            opened = await open_prediction(scientist, model_id=imported.model_id, batch=1)
            answer = await answer_prediction(scientist, opened, images=pixels[:1].numpy())
            np.testing.assert_allclose(answer.logits, expected, atol=0.02)
            return next(p.endpoint.address for p in opened.wire.parties if p.index == 0)

        both = {cluster.addresses["party-0"], cluster.addresses["party-0-cell-1"]}
        asked = [await ask() for _ in range(4)]
        assert set(asked) == both
        assert asked[0] != asked[1]
        cluster.kill("party-0-cell-1")
        assert {await ask() for _ in range(4)} == {cluster.addresses["party-0"]}
