"""A second cell: replicas of the three parties that fetch model shares from home and predict."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.core.errors import NotFound, PermissionDenied, TrefoilError
from libs.core.ids import PARTIES, PartyId
from libs.rpc._generated.trefoil.party.v1 import party_pb2, party_pb2_grpc
from libs.rpc.channel import translated
from libs.rpc.identity import party_identity
from services.smpc_party.settings import PartySettings
from tests.fakes.party_rig import PartyRig, SmallModel

MODEL = "study-1/released"
P0, P1, P2 = PARTIES


class SecondCell(PartyRig):
    """Three replicas whose home is another rig."""

    home: PartyRig

    def settings(self, party: Any) -> PartySettings:
        self.overrides = {**self.overrides, "cell": 1, "home": self.home.address(party)}
        return super().settings(party)


@pytest.fixture
async def cell(rig: PartyRig, keys: Path, tmp_path: Path) -> AsyncIterator[SecondCell]:
    second = SecondCell(keys, tmp_path / "cell-1")
    second.home = rig
    async with second:
        yield second


async def ask(cell: PartyRig, model: SmallModel, *, turn: int = 0) -> None:
    assignment = await cell.open_prediction(MODEL, turn=turn)
    result = await (await cell.client()).predict(assignment, model.plan, model.pixels(1))
    np.testing.assert_allclose(result.logits, model.logits(1), atol=0.02)


async def test_a_second_cell_predicts_with_shares_that_it_fetched_once(
    rig: PartyRig, cell: SecondCell, small_model: SmallModel
) -> None:
    await rig.deal_model(small_model.parameters, model_id=MODEL, plan=small_model.plan.to_json())
    await ask(cell, small_model)
    for party in PARTIES:
        await rig.stop(party)  # nothing more is needed from home
    for turn in range(1, 4):
        await ask(cell, small_model, turn=turn)


async def test_a_model_that_home_does_not_have_is_not_found(cell: SecondCell) -> None:
    with pytest.raises(NotFound, match="knows no model"):
        await cell.open_prediction(MODEL)


async def test_a_share_is_handed_to_its_own_party_alone(rig: PartyRig, small_model: SmallModel) -> None:
    await rig.deal_model(small_model.parameters, model_id=MODEL, plan=small_model.plan.to_json())

    async def fetch(caller: PartyId) -> int:
        stub: Any = party_pb2_grpc.PeerServiceStub(await rig.channel(P0, party_identity(caller)))
        with translated():
            return len([p async for p in stub.FetchModel(party_pb2.FetchModelRequest(model_id=MODEL))])

    assert await fetch(P0) == 2  # header and one chunk
    for other in (P1, P2):
        with pytest.raises(PermissionDenied, match="another party"):
            await fetch(other)


async def test_replicas_of_different_cells_do_not_talk(
    rig: PartyRig, cell: SecondCell, small_model: SmallModel
) -> None:
    """A replica that is given an address in another cell gets no link, rather than a wrong one."""
    await rig.deal_model(small_model.parameters, model_id=MODEL, plan=small_model.plan.to_json())
    await cell.stop(P0)
    cell.ports[1], right = rig.ports[1], cell.ports[1]  # party 0 will dial party 1 of cell 0
    await cell.start(P0)
    cell.ports[1] = right
    with pytest.raises(TrefoilError):
        await ask(cell, small_model)
