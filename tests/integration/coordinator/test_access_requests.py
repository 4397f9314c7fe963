"""Requests for access: signed by who asks, passed on to the hospital until it has decided."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import grpc
import pytest

from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from libs.rpc._generated.trefoil.types.v1.types_pb2 import PrivacyCost, SignedStatement
from libs.rpc.identity import Identity, Kind
from libs.rpc.statements import sign_statement
from libs.rpc.tokens import Role
from tests.fakes.federation import CLINIC, SCIENTIST, Federation, eventually, training_plan
from tests.fakes.keys import tls_files
from tests.fakes.rpc_rig import code_of

PLAN = training_plan()
EVE = Identity(Kind.CLIENT, "eve")


def words(**changes: Any) -> dict[str, Any]:
    said = {
        "request_id": "access-1",
        "dataset_id": "alpha/xrays",
        "purpose": "training",
        "plan_hash": PLAN.hash,
        "epsilon": "2.5",
        "delta": "0.00001",
        "uses": 1,
        "reason": "A detector for the emergency ward.",
        "requested_at": datetime(2026, 11, 24, tzinfo=UTC).isoformat(),
        **changes,
    }
    return {name: value for name, value in said.items() if value is not None}


async def ask(
    federation: Federation,
    *,
    signer: Identity = SCIENTIST,
    caller: Identity = SCIENTIST,
    role: Role = Role.SCIENTIST,
    plan: bytes = PLAN.canonical_json(),
    statement: SignedStatement | None = None,
    **changes: Any,
) -> pb.AccessRequest:
    signed = sign_statement("access-request", words(**changes), tls=tls_files(federation.keys, signer))
    request = pb.RequestAccessRequest(statement=statement or signed, training_plan=plan)
    stub = await federation.stub(caller, role)
    asked: pb.AccessRequest = (await stub.RequestAccess(request)).request
    return asked


async def listed(
    federation: Federation, identity: Identity = SCIENTIST, role: Role = Role.SCIENTIST
) -> list[pb.AccessRequest]:
    stub = await federation.stub(identity, role)
    return list((await stub.ListAccessRequests(pb.ListAccessRequestsRequest())).requests)


async def delivered(federation: Federation, name: str = "alpha", *, count: int = 1) -> list[Any]:
    hospital = federation.hospitals[name]
    await eventually(lambda: len(hospital.ordered("access_request")) >= count)
    return hospital.ordered("access_request")


def decide(federation: Federation, state: pb.AccessState, *, name: str = "alpha", **fields: Any) -> None:
    decision = pb.AccessDecision(request_id="access-1", state=state, **fields)
    federation.hospitals[name].say(access_decision=decision)


async def state_of(federation: Federation) -> pb.AccessDecision:
    (request,) = await listed(federation)
    return request.decision


async def test_a_request_reaches_its_hospital_word_for_word_and_the_answer_comes_back(
    federation: Federation,
) -> None:
    asked = await ask(federation)
    assert (asked.decision.state, asked.requested_by) == (pb.ACCESS_STATE_PENDING, "dana")
    (order,) = await delivered(federation)
    signed = sign_statement("access-request", words(), tls=tls_files(federation.keys, SCIENTIST))
    assert order.statement.payload == signed.payload
    assert (order.request_id, order.requested_by) == ("access-1", "dana")
    assert order.training_plan == PLAN.canonical_json()
    assert not federation.hospitals["beta"].ordered("access_request")
    granted = PrivacyCost(epsilon="2", delta="0.00001")
    decide(federation, pb.ACCESS_STATE_APPROVED, reason="Less will do.", granted=granted, uses=1)

    async def approved() -> bool:
        return (await state_of(federation)).state == pb.ACCESS_STATE_APPROVED

    await eventually(approved)
    (request,) = await listed(federation)
    assert request.delivered
    assert (request.decision.granted, request.decision.reason) == (granted, "Less will do.")
    assert (request.asked.epsilon, request.uses_asked) == ("2.5", 1)


async def test_it_comes_again_on_every_stream_until_it_is_decided(federation: Federation) -> None:
    await ask(federation)
    await delivered(federation)
    await federation.hospitals["alpha"].detach()
    await federation.attach("alpha")
    await delivered(federation, count=2)
    decide(federation, pb.ACCESS_STATE_DENIED)

    async def denied() -> bool:
        return (await state_of(federation)).state == pb.ACCESS_STATE_DENIED

    await eventually(denied)
    await federation.hospitals["alpha"].detach()
    await federation.attach("alpha")
    await ask(federation, request_id="access-2")
    orders = await delivered(federation, count=3)
    assert [order.request_id for order in orders] == ["access-1", "access-1", "access-2"]


async def test_a_hospital_that_is_away_gets_it_when_it_is_back_even_after_a_restart(
    federation: Federation,
) -> None:
    await federation.hospitals["alpha"].detach()
    asked = await ask(federation)
    assert not asked.delivered
    await federation.stop_coordinator()
    await federation.start_coordinator()
    await federation.attach("alpha")
    await delivered(federation)


async def test_the_same_request_id_asks_once(federation: Federation) -> None:
    await ask(federation)
    await ask(federation, requested_at=datetime.now(UTC).isoformat())  # as a command does that is repeated
    assert len(await listed(federation)) == 1
    await delivered(federation)
    for changes in ({"reason": "Another."}, {"epsilon": "3"}, {"dataset_id": "beta/xrays"}):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ask(federation, **changes)
        assert code_of(raised.value) == "already_exists"
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ask(federation, signer=EVE, caller=EVE)
    assert code_of(raised.value) == "already_exists"
    assert len(federation.hospitals["alpha"].ordered("access_request")) == 1


async def test_nobody_asks_in_another_ones_name(federation: Federation) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ask(federation, signer=EVE)
    assert code_of(raised.value) == "permission_denied"
    assert not await listed(federation)


async def test_changed_words_are_refused(federation: Federation) -> None:
    tls = tls_files(federation.keys, SCIENTIST)
    signed = sign_statement("access-request", words(), tls=tls)
    signed.payload = signed.payload.replace(b'"uses":1', b'"uses":9')
    other_kind = sign_statement("study", words(), tls=tls)
    for statement in (signed, other_kind, SignedStatement()):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await ask(federation, statement=statement)
        assert code_of(raised.value) == "invalid_input"


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"dataset_id": "alpha/none"}, "not_found"),
        ({"purpose": "fun"}, "invalid_input"),
        ({"plan_hash": "0" * 64}, "invalid_input"),
        ({"plan": b"{}"}, "invalid_input"),
        ({"plan": b""}, "invalid_input"),
        ({"plan": PLAN.canonical_json() + b" "}, "invalid_input"),
        ({"purpose": "prediction", "model_id": "model-1"}, "invalid_input"),  # with a plan beside it
        ({"purpose": "prediction", "plan": b""}, "invalid_input"),
        ({"epsilon": "-1"}, "invalid_input"),
        ({"epsilon": "nan"}, "invalid_input"),
        ({"epsilon": "1e5"}, "invalid_input"),
        ({"delta": "inf"}, "invalid_input"),
        ({"uses": 0}, "invalid_input"),
        ({"uses": 10**7}, "invalid_input"),
        ({"reason": " "}, "invalid_input"),
        ({"requested_at": "yesterday"}, "invalid_input"),
        ({"requested_at": "2026-11-24T00:00:00"}, "invalid_input"),
        ({"request_id": ""}, "invalid_input"),
        ({"request_id": None}, "invalid_input"),
    ],
)
async def test_a_wrong_field_is_refused_and_nothing_is_stored(
    federation: Federation, changes: dict[str, Any], code: str
) -> None:
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ask(federation, **changes)
    assert code_of(raised.value) == code
    assert not await listed(federation)


async def test_a_clinician_asks_for_predictions(federation: Federation) -> None:
    asked = await ask(
        federation,
        signer=CLINIC,
        caller=CLINIC,
        role=Role.CLINICIAN,
        plan=b"",
        purpose="prediction",
        plan_hash=None,
        model_id="study-1/released",
        epsilon="inf",
        delta="0",
        uses=100,
    )
    assert (asked.purpose, asked.model_id, asked.plan_hash) == ("prediction", "study-1/released", "")


async def test_everybody_sees_their_own_and_an_operator_all(federation: Federation) -> None:
    await ask(federation)
    await ask(federation, signer=EVE, caller=EVE, request_id="access-2")
    assert [request.request_id for request in await listed(federation)] == ["access-1"]
    assert [request.request_id for request in await listed(federation, EVE)] == ["access-2"]
    everything = await listed(federation, EVE, Role.OPERATOR)
    assert [request.request_id for request in everything] == ["access-1", "access-2"]


async def test_another_hospital_cannot_decide(federation: Federation) -> None:
    await ask(federation)
    decide(federation, pb.ACCESS_STATE_APPROVED, name="beta")
    federation.hospitals["beta"].publish("after", images=1)
    stub = await federation.stub()

    async def processed() -> bool:
        found = await stub.SearchDatasets(pb.SearchDatasetsRequest(name_contains="after"))
        return bool(found.datasets)

    await eventually(processed)
    assert (await state_of(federation)).state == pb.ACCESS_STATE_PENDING


async def test_what_is_final_stays(federation: Federation) -> None:
    await ask(federation)
    for state in (pb.ACCESS_STATE_APPROVED, pb.ACCESS_STATE_REVOKED):
        decide(federation, state)
    decide(federation, pb.ACCESS_STATE_APPROVED, reason="too late")

    async def revoked() -> bool:
        return (await state_of(federation)).state == pb.ACCESS_STATE_REVOKED

    await eventually(revoked)
    federation.hospitals["alpha"].publish("after", images=1)
    await eventually(revoked)
    assert (await state_of(federation)).reason == ""


async def test_a_study_carries_its_creators_signed_words(federation: Federation) -> None:
    await federation.create(PLAN)
    hospital = federation.hospitals["alpha"]
    await eventually(lambda: hospital.ordered("proposal"))
    (proposal,) = hospital.ordered("proposal")
    assert PLAN.hash.encode() in proposal.statement.payload
    assert proposal.statement.signature


async def test_a_study_that_was_not_signed_so_is_refused(federation: Federation) -> None:
    fields = {
        "request_id": "request-1",
        "title": "Pneumonia",
        "training_plan": PLAN.canonical_json(),
        "dataset_ids": [f"{name}/xrays" for name in federation.hospitals],
    }
    other_plan = training_plan(rounds=9).canonical_json()
    for changes in (
        {"request_id": "request-2"},
        {"title": "Another"},
        {"dataset_ids": ["alpha/xrays"]},
        {"training_plan": other_plan},
    ):
        statement = federation.signed_study({**fields, **changes})
        with pytest.raises(grpc.aio.AioRpcError, match="not the one that was signed"):
            await federation.create(PLAN, statement=statement)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await federation.create(PLAN, statement=federation.signed_study(fields, signer=EVE))
    assert code_of(raised.value) == "permission_denied"
    assert not (await (await federation.stub()).ListStudies(pb.ListStudiesRequest())).studies


async def test_asking_and_deciding_are_audit_entries(federation: Federation) -> None:
    assert federation.coordinator is not None
    await ask(federation)
    await delivered(federation)
    decide(federation, pb.ACCESS_STATE_DENIED)

    async def denied() -> bool:
        return (await state_of(federation)).state == pb.ACCESS_STATE_DENIED

    await eventually(denied)
    entries = federation.coordinator.audit.log.page(after=0, limit=1000)
    found = [entry for entry in entries if entry.get("action", "").startswith("access.")]
    assert [(entry["action"], entry["object"]) for entry in found] == [
        ("access.requested", "access-1"),
        ("access.denied", "access-1"),
    ]
    assert found[0]["actor"] == f"{SCIENTIST.uri} (dana)"
    assert found[1]["actor"] == f"{federation.hospitals['alpha'].identity.uri} (alpha)"
    assert found[0]["details"]["plan_hash"] == PLAN.hash


async def test_one_person_cannot_pile_up_requests(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.coordinator.access.MAX_OPEN_REQUESTS", 2)
    for number in range(2):
        await ask(federation, request_id=f"access-{number}")
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await ask(federation, request_id="access-2")
    assert code_of(raised.value) == "failed_precondition"
    await ask(federation, request_id="access-0")  # a repetition is no new one
    await ask(federation, signer=EVE, caller=EVE, request_id="access-3")
