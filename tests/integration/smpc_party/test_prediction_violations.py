"""What a client, the coordinator or a peer may not send: it ends the prediction, and only that one."""

from __future__ import annotations

import time
from collections.abc import Callable

import numpy as np
import pytest

from libs.core.errors import (
    DeadlineExceeded,
    InvalidInput,
    PeerViolation,
    TooLarge,
    TrefoilError,
    Unavailable,
)
from libs.core.ids import PartyId
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc.channel import translated
from tests.fakes.party_rig import HOSPITALS, PartyRig, SmallModel
from tests.fakes.prediction_talk import MODEL, P1, P2, check, chunk, end, first_answer, talking

# ---------------------------------------------------------------- what a client may not send

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
