"""Encrypted predictions by three parties over mTLS, and who may ask for one."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import numpy as np
import pytest

from libs.core.errors import (
    AlreadyExists,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PermissionDenied,
    TooLarge,
    TrefoilError,
)
from libs.core.ids import PARTIES, PartyId, new_id
from libs.rpc._generated.trefoil.party.v1 import party_pb2, party_pb2_grpc
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.channel import translated
from libs.rpc.identity import Identity, party_identity
from tests.fakes.party_rig import CLINIC, HOSPITALS, OTHER_CLINIC, SCIENTIST, PartyRig, SmallModel
from tests.fakes.prediction_talk import MODEL, P0, P1, P2, check, first_answer, talking


async def test_an_encrypted_prediction_equals_the_clear_one_in_every_rotation(
    ready: PartyRig, small_model: SmallModel
) -> None:
    client = await ready.client()
    for turn in range(3):
        assignment = await ready.open_prediction(MODEL, batch=3, turn=turn)
        result = await client.predict(assignment, small_model.plan, small_model.pixels(3))
        np.testing.assert_allclose(result.logits, small_model.logits(3), atol=0.02)
        cost = small_model.plan.cost(3)
        assert [report.rounds for report in result.reports] == [cost.rounds] * 2
        assert [report.bytes_sent_online for report in result.reports] == [cost.online_bytes_each_way] * 2
        assert [report.bytes_received_offline for report in result.reports] == [0, cost.dealt_bytes]


async def test_predictions_at_once_are_all_right_and_share_one_masked_model(
    ready: PartyRig, small_model: SmallModel
) -> None:
    await asyncio.gather(*(check(ready, small_model, batch=1 + i % 3) for i in range(12)))
    for party in PARTIES:
        assert len(ready.parties[party]._masked_models._kept) == 1


async def test_a_masked_model_is_used_again_and_made_again_after_a_restart(
    ready: PartyRig, small_model: SmallModel
) -> None:
    await check(ready, small_model)
    first = set(ready.parties[P0]._masked_models._kept)
    await check(ready, small_model)
    assert set(ready.parties[P0]._masked_models._kept) == first
    await ready.stop(P1)
    await ready.start(P1)
    await check(ready, small_model)
    assert set(ready.parties[P0]._masked_models._kept) > first


async def test_a_small_prediction_takes_well_below_a_tenth_of_a_second(
    ready: PartyRig, small_model: SmallModel
) -> None:
    await check(ready, small_model)
    client = await ready.client()
    seconds = []
    for _ in range(10):
        assignment = await ready.open_prediction(MODEL)
        began = time.perf_counter()
        await client.predict(assignment, small_model.plan, small_model.pixels(1))
        seconds.append(time.perf_counter() - began)
    assert min(seconds) < 0.1


# ---------------------------------------------------------------- who may ask what


async def test_only_the_assigned_client_reaches_a_prediction(
    ready: PartyRig, small_model: SmallModel
) -> None:
    assignment = await ready.open_prediction(MODEL)
    stranger = await ready.client(SCIENTIST)
    with pytest.raises(PermissionDenied, match="another client"):
        await stranger.predict(assignment, small_model.plan, small_model.pixels(1))
    client = await ready.client()
    result = await client.predict(assignment, small_model.plan, small_model.pixels(1))
    np.testing.assert_allclose(result.logits, small_model.logits(1), atol=0.02)


async def test_a_second_stream_for_one_prediction_is_refused(
    ready: PartyRig, small_model: SmallModel
) -> None:
    assignment = await ready.open_prediction(MODEL)
    async with talking(ready, assignment, P1) as (_, answers):
        await anext(answers)
        with pytest.raises(FailedPrecondition, match="stream already"):
            await first_answer(ready, assignment, P1)


async def test_the_dealer_does_not_take_the_input(ready: PartyRig) -> None:
    """One server that saw both halves of a client's masks would see the image."""
    assignment = await ready.open_prediction(MODEL, turn=0)
    with pytest.raises((FailedPrecondition, NotFound)):
        await first_answer(ready, assignment, P0)


async def test_parties_that_were_told_different_roles_do_not_compute(
    ready: PartyRig, small_model: SmallModel
) -> None:
    computation_id = new_id("predict")
    request = party_pb2.OpenPredictionRequest(
        computation_id=computation_id, model_id=MODEL, batch=1, client_identity=CLINIC.uri, deadline_s=5.0
    )
    for party, (dealer, first, second) in {P0: (0, 1, 2), P1: (0, 1, 2), P2: (0, 2, 1)}.items():
        request.dealer, request.first_evaluator, request.second_evaluator = dealer, first, second
        await ready.tell(party, "OpenPrediction", request)
    assignment = ready.assignment(
        computation_id, dealer=0, first_evaluator=1, second_evaluator=2, deadline_s=5.0
    )
    client = await ready.client()
    with pytest.raises(FailedPrecondition, match="other terms"):
        await client.predict(assignment, small_model.plan, small_model.pixels(1))


async def test_a_computation_id_serves_once(ready: PartyRig, small_model: SmallModel) -> None:
    assignment = await ready.open_prediction(MODEL)
    client = await ready.client()
    await client.predict(assignment, small_model.plan, small_model.pixels(1))
    with pytest.raises(NotFound):
        await client.predict(assignment, small_model.plan, small_model.pixels(1))
    request = party_pb2.OpenPredictionRequest(
        computation_id=assignment.computation_id,
        model_id=MODEL,
        batch=1,
        dealer=0,
        first_evaluator=1,
        second_evaluator=2,
        client_identity=CLINIC.uri,
        deadline_s=5.0,
    )
    for party in PARTIES:
        with pytest.raises(AlreadyExists):
            await ready.tell(party, "OpenPrediction", request)


BAD_ASSIGNMENTS: dict[str, tuple[dict[str, Any], type[TrefoilError]]] = {
    "one party in two roles": ({"first_evaluator": 0}, InvalidInput),
    "a party that does not exist": ({"dealer": 5}, InvalidInput),
    "no image": ({"batch": 0}, TooLarge),
    "too many images": ({"batch": 65}, TooLarge),
    "a deadline beyond the limit": ({"deadline_s": 1e6}, InvalidInput),
    "a deadline that is not a number": ({"deadline_s": float("nan")}, InvalidInput),
    "an unknown model": ({"model_id": "other/released"}, NotFound),
    "a model without a plan": ({"model_id": "study-1/v0"}, FailedPrecondition),
    "no client": ({"client_identity": ""}, InvalidInput),
}


@pytest.mark.parametrize("name", BAD_ASSIGNMENTS)
async def test_a_bad_assignment_is_refused(ready: PartyRig, name: str) -> None:
    await ready.deal_model(np.zeros(4, np.uint32), model_id="study-1/v0")
    fields, error = BAD_ASSIGNMENTS[name]
    model_id = fields.pop("model_id", MODEL) if "model_id" in fields else MODEL
    with pytest.raises(error):
        await ready.open_prediction(model_id, **fields)


async def test_a_model_may_name_who_asks_it(rig: PartyRig, small_model: SmallModel) -> None:
    await rig.deal_model(
        small_model.parameters,
        model_id=MODEL,
        plan=small_model.plan.to_json(),
        use=types_pb2.ModelUse(asker_identities=[OTHER_CLINIC.uri]),
    )
    with pytest.raises(PermissionDenied, match="may not ask"):
        await rig.open_prediction(MODEL)
    assert await rig.open_prediction(MODEL, client_identity=OTHER_CLINIC.uri)


async def test_who_dealt_a_model_may_ask_it_and_nobody_else_without_a_word(
    rig: PartyRig, small_model: SmallModel
) -> None:
    await rig.deal_model(
        small_model.parameters, model_id=MODEL, plan=small_model.plan.to_json(), use=types_pb2.ModelUse()
    )
    assert await rig.open_prediction(MODEL, client_identity=SCIENTIST.uri)
    with pytest.raises(PermissionDenied, match="ask its owner"):
        await rig.open_prediction(MODEL)


async def test_a_plan_that_does_not_fit_its_parameters_is_refused(
    rig: PartyRig, small_model: SmallModel
) -> None:
    with pytest.raises(InvalidInput, match="parameters"):
        await rig.deal_model(small_model.parameters[:-1], model_id=MODEL, plan=small_model.plan.to_json())
    with pytest.raises(InvalidInput):
        await rig.deal_model(small_model.parameters, model_id=MODEL, plan=b"{}")


async def test_a_dealer_may_leave_once_it_has_dealt(ready: PartyRig, small_model: SmallModel) -> None:
    assignment = await ready.open_prediction(MODEL, turn=0)
    async with (
        talking(ready, assignment, P1) as (_, answers1),
        talking(ready, assignment, P2) as (_, answers2),
    ):
        seeds = [(await anext(answers)).mask.seed for answers in (answers1, answers2)]
        assert len({*seeds}) == 2
        assert not ready.parties[P0]._predictions._open


async def test_only_the_lower_party_dials_and_only_parties(ready: PartyRig) -> None:
    async def exchange(caller: Identity, server: PartyId) -> None:
        stub = party_pb2_grpc.PeerServiceStub(await ready.channel(server, caller))
        call = stub.Exchange(iter([]))
        with translated():
            await anext(aiter(call))

    for caller, server in (
        (party_identity(2), P0),
        (party_identity(1), P1),
        (CLINIC, P0),
        (HOSPITALS[0], P2),
    ):
        with pytest.raises(TrefoilError) as caught:
            await exchange(caller, server)
        assert caught.value.code in {"permission_denied", "unauthenticated"}
