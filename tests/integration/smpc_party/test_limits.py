"""Neither a plan nor a client can use up a party, and rounds close whatever is asked for meanwhile."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path

import numpy as np
import pytest

from libs.core.errors import TooLarge, Unavailable
from libs.core.ids import PARTIES
from services.smpc_party.limits import working_bytes
from tests.fakes.party_rig import (
    HOSPITALS,
    SCIENTIST,
    PartyRig,
    SmallModel,
    contribution_ref,
    open_request,
)

MODEL = "imported-1"


async def deal_to(rig: PartyRig, model: SmallModel) -> None:
    await rig.deal_model(model.parameters, model_id=MODEL, plan=model.plan.to_json(), reader_identities=[])


async def test_a_plan_too_large_for_one_image_is_refused_when_it_is_registered(
    keys: Path, tmp_path: Path, small_model: SmallModel
) -> None:
    room = working_bytes(small_model.plan, batch=1)
    async with PartyRig(keys, tmp_path, {"max_prediction_bytes": room - 1}) as rig:
        with pytest.raises(TooLarge, match="MiB"):
            await deal_to(rig, small_model)
        request = open_request(1, length=len(small_model.parameters), plan=small_model.plan.to_json())
        request.base_model_id = ""
        request.ring = 1 if small_model.parameters.dtype == np.uint32 else 2
        with pytest.raises(TooLarge):
            await rig.tell_all("OpenRound", request)


async def test_a_batch_too_large_is_refused_and_what_does_not_fit_now_waits(
    keys: Path, tmp_path: Path, small_model: SmallModel
) -> None:
    room = working_bytes(small_model.plan, batch=3)
    async with PartyRig(keys, tmp_path, {"max_prediction_bytes": room}) as rig:
        await deal_to(rig, small_model)
        with pytest.raises(TooLarge, match="fewer images"):
            await rig.open_prediction(MODEL, batch=4)
        await rig.open_prediction(MODEL, batch=2)
        await rig.open_prediction(MODEL, batch=1)
        with pytest.raises(Unavailable, match="busy"):
            await rig.open_prediction(MODEL, batch=1)


async def test_one_client_cannot_take_all_predictions(
    keys: Path, tmp_path: Path, small_model: SmallModel
) -> None:
    async with PartyRig(keys, tmp_path, {"max_predictions_per_client": 2}) as rig:
        await deal_to(rig, small_model)
        for _ in range(2):
            await rig.open_prediction(MODEL)
        with pytest.raises(Unavailable, match="client/clinic has 2"):
            await rig.open_prediction(MODEL)
        await rig.open_prediction(MODEL, client_identity=SCIENTIST.uri)


async def test_a_round_closes_while_predictions_take_every_thread(rig: PartyRig) -> None:
    await rig.tell_all("OpenRound", open_request(1, length=8, metrics=0, base_model_id=""))
    for hospital in HOSPITALS[:2]:  # not all, so that closing computes
        await rig.deal(np.ones(8, np.uint32), contribution_ref(1), hospital)
    ended = threading.Event()
    for party in PARTIES:
        for pool in (rig.parties[party]._online, rig.parties[party]._offline):
            for _ in range(2):
                pool.submit(ended.wait, 20)
    try:
        async with asyncio.timeout(10):
            await rig.close_round(1)
    finally:
        ended.set()
