"""Encrypted predictions by three parties over mTLS, and everything that must end one."""

from __future__ import annotations

import asyncio
import hashlib
import time
from collections.abc import AsyncIterator, Callable
from typing import Any

import numpy as np
import pytest

from libs.core.errors import (
    AlreadyExists,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    PeerViolation,
    PermissionDenied,
    TooLarge,
    TrefoilError,
    Unavailable,
)
from libs.core.ids import PARTIES, PartyId, new_id
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.party.v1 import party_pb2, party_pb2_grpc
from libs.rpc.channel import translated
from libs.rpc.identity import Identity, party_identity
from tests.fakes.party_rig import CLINIC, HOSPITALS, SCIENTIST, PartyRig, SmallModel

MODEL = "study-1/released"
P0, P1, P2 = PARTIES


@pytest.fixture
async def ready(rig: PartyRig, small_model: SmallModel) -> PartyRig:
    """Three parties that hold a released model."""
    await rig.deal_model(small_model.parameters, model_id=MODEL, plan=small_model.plan.to_json())
    return rig


async def check(rig: PartyRig, model: SmallModel, *, batch: int = 1, turn: int = 0) -> None:
    """One more prediction, which must be right."""
    assignment = await rig.open_prediction(MODEL, batch=batch, turn=turn)
    client = await rig.client()
    result = await client.predict(assignment, model.plan, model.pixels(batch))
    np.testing.assert_allclose(result.logits, model.logits(batch), atol=0.02)


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
        predictor_identities=[SCIENTIST.uri],
    )
    with pytest.raises(PermissionDenied, match="may not ask"):
        await rig.open_prediction(MODEL)
    assert await rig.open_prediction(MODEL, client_identity=SCIENTIST.uri)


async def test_a_plan_that_does_not_fit_its_parameters_is_refused(
    rig: PartyRig, small_model: SmallModel
) -> None:
    with pytest.raises(InvalidInput, match="parameters"):
        await rig.deal_model(small_model.parameters[:-1], model_id=MODEL, plan=small_model.plan.to_json())
    with pytest.raises(InvalidInput):
        await rig.deal_model(small_model.parameters, model_id=MODEL, plan=b"{}")


# ---------------------------------------------------------------- what a client may not send


class Talk:
    """A client that says exactly what a test tells it to, to one evaluator."""

    def __init__(
        self, rig: PartyRig, assignment: coordinator_pb2.OpenPredictionResponse, party: PartyId
    ) -> None:
        self._rig, self._assignment, self._party = rig, assignment, party
        self._said: asyncio.Queue[party_pb2.PredictRequest | None] = asyncio.Queue()
        self._call: Any = None

    async def __aenter__(self) -> tuple[asyncio.Queue[Any], AsyncIterator[party_pb2.PredictResponse]]:
        stub = await self._rig.stub(self._party, CLINIC)
        self._call = stub.Predict(self._requests())
        return self._said, aiter(self._call)

    async def __aexit__(self, *_: object) -> None:
        self._call.cancel()

    async def _requests(self) -> AsyncIterator[party_pb2.PredictRequest]:
        yield party_pb2.PredictRequest(
            open=party_pb2.PredictOpen(computation_id=self._assignment.computation_id)
        )
        while (request := await self._said.get()) is not None:
            yield request


def talking(rig: PartyRig, assignment: coordinator_pb2.OpenPredictionResponse, party: PartyId) -> Talk:
    return Talk(rig, assignment, party)


async def first_answer(
    rig: PartyRig, assignment: coordinator_pb2.OpenPredictionResponse, party: PartyId
) -> party_pb2.PredictResponse:
    async with talking(rig, assignment, party) as (_, answers):
        with translated():
            return await anext(answers)


def chunk(data: bytes) -> party_pb2.PredictRequest:
    return party_pb2.PredictRequest(masked_input_chunk=data)


def end(data: bytes) -> party_pb2.PredictRequest:
    return party_pb2.PredictRequest(input_end=party_pb2.InputEnd(sha256=hashlib.sha256(data).digest()))


INPUT = bytes(64 * 4)
BAD_INPUTS: dict[str, tuple[list[party_pb2.PredictRequest | None], type[TrefoilError]]] = {
    "too short": ([chunk(INPUT[:-4]), end(INPUT[:-4])], InvalidInput),
    "too long": ([chunk(INPUT + b"1234"), end(INPUT + b"1234")], InvalidInput),
    "another hash": ([chunk(INPUT), end(b"")], InvalidInput),
    "no end": ([chunk(INPUT), None], InvalidInput),
    "an empty chunk": ([chunk(b"")], InvalidInput),
    "a chunk over 1 MiB": ([chunk(bytes((1 << 20) + 1))], TooLarge),
    "opened twice": ([party_pb2.PredictRequest(open=party_pb2.PredictOpen())], InvalidInput),
    "nothing": ([party_pb2.PredictRequest()], InvalidInput),
}


@pytest.mark.parametrize("name", BAD_INPUTS)
async def test_a_bad_input_is_refused_and_burns_the_prediction_everywhere(ready: PartyRig, name: str) -> None:
    requests, error = BAD_INPUTS[name]
    assignment = await ready.open_prediction(MODEL)
    async with (
        talking(ready, assignment, P1) as (say, answers),
        talking(ready, assignment, P2) as (_, others),
    ):
        await anext(answers)
        await anext(others)
        for request in requests:
            say.put_nowait(request)
        with pytest.raises(error), translated():
            await anext(answers)
        with pytest.raises(Unavailable, match="aborted"), translated():
            await anext(others)
    with pytest.raises(TrefoilError):
        await first_answer(ready, assignment, P1)


async def test_different_inputs_for_the_two_evaluators_are_refused(ready: PartyRig) -> None:
    assignment = await ready.open_prediction(MODEL)
    other = bytes(63 * 4) + b"1234"
    async with (
        talking(ready, assignment, P1) as (say1, answers1),
        talking(ready, assignment, P2) as (say2, answers2),
    ):
        await anext(answers1)
        await anext(answers2)
        for say, data in ((say1, INPUT), (say2, other)):
            say.put_nowait(chunk(data))
            say.put_nowait(end(data))
        with pytest.raises((PeerViolation, Unavailable)), translated():
            await anext(answers1)
        with pytest.raises((PeerViolation, Unavailable)), translated():
            await anext(answers2)


async def test_a_client_that_hangs_up_frees_both_evaluators(ready: PartyRig, small_model: SmallModel) -> None:
    assignment = await ready.open_prediction(MODEL)
    async with talking(ready, assignment, P2) as (_, others):
        await anext(others)
        async with talking(ready, assignment, P1) as (_, answers):
            await anext(answers)
        began = time.monotonic()
        with pytest.raises(Unavailable, match="aborted"), translated():
            await anext(others)
        assert time.monotonic() - began < 2
    assert all(not ready.parties[p]._predictions._open for p in (P1, P2))
    await check(ready, small_model)


async def test_a_client_that_never_comes_ends_at_the_deadline(ready: PartyRig) -> None:
    assignment = await ready.open_prediction(MODEL, deadline_s=0.5)
    async with talking(ready, assignment, P1) as (_, answers):
        await anext(answers)
        with pytest.raises((DeadlineExceeded, Unavailable)), translated():
            await anext(answers)
    assert not ready.parties[P1]._predictions._open


async def test_images_that_the_model_does_not_take_burn_nothing_but_the_prediction(
    ready: PartyRig, small_model: SmallModel
) -> None:
    client = await ready.client()
    for images in (np.zeros((1, 1, 9, 9)), np.full((1, 1, 8, 8), np.nan), np.full((1, 1, 8, 8), 1e9)):
        assignment = await ready.open_prediction(MODEL)
        with pytest.raises(InvalidInput):
            await client.predict(assignment, small_model.plan, images)
    await check(ready, small_model)


# ------------------------------------------------------------ what the coordinator may not tell the client


def same_identity_twice(response: coordinator_pb2.OpenPredictionResponse) -> None:
    response.parties[2].endpoint.identity = response.parties[1].endpoint.identity


def same_address_twice(response: coordinator_pb2.OpenPredictionResponse) -> None:
    response.parties[2].endpoint.address = response.parties[1].endpoint.address


def not_a_party(response: coordinator_pb2.OpenPredictionResponse) -> None:
    response.parties[1].endpoint.identity = HOSPITALS[0].uri


def one_evaluator_in_both_roles(response: coordinator_pb2.OpenPredictionResponse) -> None:
    response.second_evaluator = response.first_evaluator


def two_parties(response: coordinator_pb2.OpenPredictionResponse) -> None:
    del response.parties[0]


def another_plan(response: coordinator_pb2.OpenPredictionResponse) -> None:
    response.plan = b"{}"


@pytest.mark.parametrize(
    "lie",
    [
        same_identity_twice,
        same_address_twice,
        not_a_party,
        one_evaluator_in_both_roles,
        two_parties,
        another_plan,
    ],
)
async def test_the_client_refuses_parties_that_are_not_three(
    ready: PartyRig, small_model: SmallModel, lie: Callable[[coordinator_pb2.OpenPredictionResponse], None]
) -> None:
    assignment = await ready.open_prediction(MODEL)
    lie(assignment)
    client = await ready.client()
    with pytest.raises(InvalidInput):
        await client.predict(assignment, small_model.plan, small_model.pixels(1))


async def test_a_party_at_another_partys_address_is_refused_by_tls(
    ready: PartyRig, small_model: SmallModel
) -> None:
    assignment = await ready.open_prediction(MODEL)
    one, two = (assignment.parties[i].endpoint for i in (1, 2))
    one.address, two.address = two.address, one.address
    client = await ready.client()
    with pytest.raises(Unavailable, match="certificates"):
        await client.predict(assignment, small_model.plan, small_model.pixels(1))


# ---------------------------------------------------------------- what a peer may not send

Tamper = Callable[[party_pb2.PeerData], None]


def later_sequence(data: party_pb2.PeerData) -> None:
    data.sequence += 1


def earlier_sequence(data: party_pb2.PeerData) -> None:
    data.sequence -= 1


def another_label(data: party_pb2.PeerData) -> None:
    data.label = "nowhere"


def another_name(data: party_pb2.PeerData) -> None:
    data.arrays[0].name += "!"


def another_shape(data: party_pb2.PeerData) -> None:
    data.arrays[0].shape[:] = [1, *data.arrays[0].shape]


def another_dtype(data: party_pb2.PeerData) -> None:
    data.arrays[0].dtype = party_pb2.ArrayHeader.DTYPE_UINT16
    data.arrays[0].shape[:] = [len(data.payload) // 2]


def fewer_bytes(data: party_pb2.PeerData) -> None:
    data.payload = data.payload[:-1]


def a_later_part(data: party_pb2.PeerData) -> None:
    data.part = 1


def tamper_with(rig: PartyRig, sender: PartyId, receiver: PartyId, label: str, tamper: Tamper) -> None:
    """Change the next message with this label on its way out of `sender`."""
    outbox = rig.parties[sender].network._links[receiver]._outbox
    put = outbox.put

    async def tampering(frame: party_pb2.PeerFrame) -> bool:
        if frame.data.label == label:
            outbox.put = put  # type: ignore[method-assign]
            tamper(frame.data)
        return await put(frame)

    outbox.put = tampering  # type: ignore[method-assign]


@pytest.mark.parametrize(
    "tamper",
    [
        later_sequence,
        earlier_sequence,
        another_label,
        another_name,
        another_shape,
        another_dtype,
        fewer_bytes,
        a_later_part,
    ],
)
async def test_a_message_that_does_not_fit_aborts_and_names_its_sender(
    ready: PartyRig, small_model: SmallModel, tamper: Tamper
) -> None:
    await check(ready, small_model)
    opening = next(step.name for step in small_model.plan.steps if step.kind == "open")
    tamper_with(ready, P1, P2, opening, tamper)
    assignment = await ready.open_prediction(MODEL, turn=0)
    client = await ready.client()
    with pytest.raises(PeerViolation) as caught:
        await client.predict(assignment, small_model.plan, small_model.pixels(1))
    assert str(caught.value.sender) == "1"
    await check(ready, small_model)


async def test_a_message_of_another_computation_is_not_taken(
    ready: PartyRig, small_model: SmallModel
) -> None:
    await check(ready, small_model)
    opening = next(step.name for step in small_model.plan.steps if step.kind == "open")

    def of_another_computation(data: party_pb2.PeerData) -> None:
        data.computation_id = "another"

    tamper_with(ready, P1, P2, opening, of_another_computation)
    assignment = await ready.open_prediction(MODEL, deadline_s=1.0)
    client = await ready.client()
    with pytest.raises((PeerViolation, Unavailable)):
        await client.predict(assignment, small_model.plan, small_model.pixels(1))
    await check(ready, small_model)


async def test_a_lost_message_aborts_within_the_deadline(ready: PartyRig, small_model: SmallModel) -> None:
    await check(ready, small_model)
    link = ready.parties[P1].network._links[P2]
    put = link._outbox.put

    lost: set[str] = set()

    async def losing(frame: party_pb2.PeerFrame) -> bool:
        """Loses a message and all that follow, else the gap in the numbers would end it at once."""
        if frame.data.label.startswith("input"):
            lost.add(frame.data.computation_id)
        return frame.data.computation_id in lost or await put(frame)

    link._outbox.put = losing  # type: ignore[method-assign]
    assignment = await ready.open_prediction(MODEL, deadline_s=1.0)
    client = await ready.client()
    began = time.monotonic()
    with pytest.raises((DeadlineExceeded, Unavailable)):
        await client.predict(assignment, small_model.plan, small_model.pixels(1))
    assert time.monotonic() - began < 3


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
