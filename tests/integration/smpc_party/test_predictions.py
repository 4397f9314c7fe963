"""Encrypted predictions by three parties over mTLS."""

from __future__ import annotations

import time

import numpy as np

from tests.fakes.party_rig import PartyRig, SmallModel

MODEL = "study-1/released"


async def test_an_encrypted_prediction_equals_the_clear_one_in_every_rotation(
    rig: PartyRig, small_model: SmallModel
) -> None:
    await rig.deal_model(small_model.parameters, model_id=MODEL, plan=small_model.plan.to_json())
    client = await rig.client()
    for turn in range(3):
        assignment = await rig.open_prediction(MODEL, batch=3, turn=turn)
        result = await client.predict(assignment, small_model.plan, small_model.pixels(3))
        np.testing.assert_allclose(result.logits, small_model.logits(3), atol=0.02)
        cost = small_model.plan.cost(3)
        assert [report.rounds for report in result.reports] == [cost.rounds] * 2
        assert [report.bytes_sent_online for report in result.reports] == [cost.online_bytes_each_way] * 2
        assert [report.bytes_received_offline for report in result.reports] == [0, cost.dealt_bytes]


async def test_latency(rig, small_model):
    await rig.deal_model(small_model.parameters, model_id=MODEL, plan=small_model.plan.to_json())
    client = await rig.client()
    for turn in range(12):
        t = time.perf_counter()
        assignment = await rig.open_prediction(MODEL, batch=1, turn=turn)
        t1 = time.perf_counter()
        result = await client.predict(assignment, small_model.plan, small_model.pixels(1))
        print(
            turn,
            "open",
            t1 - t,
            "predict",
            time.perf_counter() - t1,
            "online",
            [r.online_s for r in result.reports],
            [r.offline_s for r in result.reports],
            result.reports[0].rounds,
        )
