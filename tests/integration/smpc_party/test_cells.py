"""A second cell: replicas of the three parties that fetch model shares from home and predict."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.core.errors import FailedPrecondition, NotFound, PermissionDenied, TrefoilError, Unavailable
from libs.core.ids import PARTIES, PartyId
from libs.rpc._generated.trefoil.party.v1 import party_pb2, party_pb2_grpc
from libs.rpc.channel import translated
from libs.rpc.identity import party_identity
from services.smpc_party.settings import PartySettings
from tests.fakes.party_rig import CLINIC, HOSPITALS, PartyRig, SmallModel

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


async def test_a_limit_is_one_for_all_cells_and_the_hospitals_word_holds_in_all_of_them(
    rig: PartyRig, cell: SecondCell, small_model: SmallModel
) -> None:
    await rig.release(small_model)
    allowed = party_pb2.ModelUseRule(asker_identity=CLINIC.uri, allowed=True, max_predictions=2)
    await rig.set_use(HOSPITALS[0], allowed)
    await ask(cell, small_model)
    await ask(rig, small_model)
    for replicas in (rig, cell):
        with pytest.raises(PermissionDenied, match="used up"):
            await replicas.open_prediction(MODEL)
    await rig.set_use(HOSPITALS[0], party_pb2.ModelUseRule(asker_identity="*", allowed=False), revision=2)
    with pytest.raises(PermissionDenied, match="alpha did not"):
        await cell.open_prediction(MODEL)


async def test_a_revocation_holds_for_what_waits_in_another_cell(
    rig: PartyRig, cell: SecondCell, small_model: SmallModel
) -> None:
    await rig.release(small_model)
    assignment = await cell.open_prediction(MODEL)
    await rig.set_use(HOSPITALS[1], party_pb2.ModelUseRule(asker_identity="*", allowed=False))
    with pytest.raises(PermissionDenied, match="beta did not"):
        await (await cell.client()).predict(assignment, small_model.plan, small_model.pixels(1))


async def test_a_replica_takes_no_rules_and_asks_home_or_nobody(
    rig: PartyRig, cell: SecondCell, small_model: SmallModel
) -> None:
    await rig.release(small_model)
    await ask(cell, small_model)
    with pytest.raises(FailedPrecondition, match="cell 0"):
        await cell.set_use(HOSPITALS[0], party_pb2.ModelUseRule(asker_identity="*", allowed=True))
    for party in PARTIES:
        await rig.stop(party)
    with pytest.raises(Unavailable):
        await cell.open_prediction(MODEL)


async def test_another_party_cannot_have_predictions_counted(rig: PartyRig, small_model: SmallModel) -> None:
    await rig.release(small_model)
    request = party_pb2.UseModelRequest(model_id=MODEL, asker_identity=CLINIC.uri, images=1)
    for caller in (P1, P2):
        stub: Any = party_pb2_grpc.PeerServiceStub(await rig.channel(P0, party_identity(caller)))
        with pytest.raises(PermissionDenied, match="another party"), translated():
            await stub.UseModel(request)


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
