"""Models, roles, and a coordinator that keeps answering when a party does not."""

from __future__ import annotations

import asyncio
import time
from collections import Counter
from typing import Any

import grpc
import pytest

from libs.core.errors import FailedPrecondition
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.tokens import Role
from tests.fakes.federation import CLINIC, SCIENTIST, Federation
from tests.fakes.rpc_rig import code_of
from tests.integration.coordinator.conftest import Start


async def imported(federation: Federation, **changes: Any) -> pb.Model:
    fields = {"request_id": "import-1", "name": "Detector", "plan": b'{"plan":1}', **changes}
    return (await (await federation.stub()).ImportModel(pb.ImportModelRequest(**fields))).model


async def ask(federation: Federation, model_id: str, *, batch: int = 1) -> pb.OpenPredictionResponse:
    stub = await federation.stub(CLINIC, Role.CLINICIAN)
    opened: pb.OpenPredictionResponse = await stub.OpenPrediction(
        pb.OpenPredictionRequest(model_id=model_id, batch=batch)
    )
    return opened


async def test_roles_rotate_evenly_and_no_computation_id_repeats(start: Start) -> None:
    federation = await start()
    model = await imported(federation)
    opened = [await ask(federation, model.model_id) for _ in range(6)]
    roles = Counter((o.dealer, o.first_evaluator, o.second_evaluator) for o in opened)
    assert roles == {(0, 1, 2): 2, (1, 2, 0): 2, (2, 0, 1): 2}
    assert len({o.computation_id for o in opened}) == 6
    for party in federation.parties:
        assert [p.computation_id for p in party.predictions] == [o.computation_id for o in opened]
        assert {p.client_identity for p in party.predictions} == {CLINIC.uri}
        assert {p.deadline_s for p in party.predictions} == {30.0}
    assert opened[0].plan == b'{"plan":1}'


async def test_an_imported_model_is_dealt_by_its_owner_and_ready_once_the_parties_take_a_prediction(
    start: Start,
) -> None:
    federation = await start()
    model = await imported(federation)
    assert not model.ready
    registered = federation.parties[1].models[model.model_id]
    assert (registered.dealer_identity, list(registered.reader_identities)) == (SCIENTIST.uri, [])
    assert registered.length == 5
    federation.parties[1].failures["OpenPrediction"] = [FailedPrecondition("Not dealt yet.")]
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ask(federation, model.model_id)
    assert raised.value.details() == "Party 1: Not dealt yet."
    await ask(federation, model.model_id)
    listed = await (await federation.stub()).ListModels(pb.ListModelsRequest())
    assert [(entry.ready, entry.plan) for entry in listed.models] == [(True, b"")]


async def test_the_parties_are_told_who_may_ask_an_imported_model_and_so_is_the_list(start: Start) -> None:
    federation = await start()
    use = types_pb2.ModelUse(asker_identities=[CLINIC.uri], max_predictions=7)
    model = await imported(federation, use=use)
    assert federation.parties[2].models[model.model_id].use == use
    listed = await (await federation.stub()).ListModels(pb.ListModelsRequest())
    assert [entry.use for entry in listed.models] == [use]


@pytest.mark.parametrize("asker", ["clinic", "*", ""])
async def test_an_asker_without_an_identity_is_refused(start: Start, asker: str) -> None:
    federation = await start()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await imported(federation, use=types_pb2.ModelUse(asker_identities=[asker]))
    assert code_of(raised.value) == "invalid_input"


@pytest.mark.parametrize("change", [{"name": "Other"}, {"use": types_pb2.ModelUse(anyone=True)}])
async def test_the_same_import_gives_the_same_model(start: Start, change: dict[str, Any]) -> None:
    federation = await start()
    assert (await imported(federation)).model_id == (await imported(federation)).model_id
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await imported(federation, **change)
    assert code_of(raised.value) == "already_exists"


async def test_models_are_listed_in_pages(start: Start) -> None:
    federation = await start()
    for number in range(5):
        await imported(federation, request_id=f"import-{number}", name=f"Model {number}")
    stub = await federation.stub()
    names, token = [], ""
    while not names or token:
        page = await stub.ListModels(pb.ListModelsRequest(page_size=2, page_token=token))
        names += [model.name for model in page.models]
        token = page.next_page_token
    assert names == [f"Model {number}" for number in range(5)]


async def test_of_a_hundred_that_want_the_last_prediction_one_gets_it_at_all_three_parties(
    start: Start,
) -> None:
    """Each party counts for itself, and the one asked first is the last that party 0 hears of."""
    federation = await start()
    model = await imported(federation)
    for party in federation.parties:
        party.limit = 1
    federation.parties[0].first_waits_s = 0.5
    answers = await asyncio.gather(
        *(ask(federation, model.model_id) for _ in range(100)), return_exceptions=True
    )
    assert sum(isinstance(answer, pb.OpenPredictionResponse) for answer in answers) == 1
    assert len({party.predictions[0].computation_id for party in federation.parties}) == 1


@pytest.mark.parametrize("batch", [0, 65])
async def test_a_batch_out_of_bounds_is_refused(start: Start, batch: int) -> None:
    federation = await start()
    model = await imported(federation)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ask(federation, model.model_id, batch=batch)
    assert code_of(raised.value) == "invalid_input"
    assert not federation.parties[0].predictions


async def test_an_unknown_model_is_not_found(start: Start) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ask(await start(), "model-none")
    assert code_of(raised.value) == "not_found"


async def test_a_party_that_is_down_is_named_and_the_coordinator_keeps_answering(start: Start) -> None:
    federation = await start()
    model = await imported(federation)
    await federation.stop_party(2)
    began = time.monotonic()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ask(federation, model.model_id)
    assert time.monotonic() - began < 3
    assert code_of(raised.value) == "unavailable"
    assert str(raised.value.details()).startswith("Party 2: ")
    assert (await (await federation.stub()).ListModels(pb.ListModelsRequest())).models


async def test_a_party_that_hangs_does_not_hang_the_caller_for_ever(start: Start) -> None:
    federation = await start(party_call_timeout_s=0.3)
    model = await imported(federation)
    federation.parties[0].hanging.add("OpenPrediction")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ask(federation, model.model_id)
    assert code_of(raised.value) == "deadline_exceeded"


async def test_parties_are_called_by_the_coordinators_certificate(start: Start) -> None:
    federation = await start()
    await imported(federation)
    assert [party.callers for party in federation.parties] == [{"spiffe://trefoil.local/coordinator"}] * 3
