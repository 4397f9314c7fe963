"""Requests that come before any study."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from libs.core.errors import FailedPrecondition, InvalidInput
from libs.rpc._generated.trefoil.hospital.v1 import access_pb2 as pb
from libs.rpc.caller import Caller, calling_as
from libs.rpc.identity import Identity, Kind
from services.hospital_node.access.domain import AccessRequest, Origin, Purpose, RequestState, Standing
from services.hospital_node.access.requests import Decision, receive
from services.hospital_node.access.rpc import AccessService
from tests.fakes.access import ALPHA, DANA, FREELY, PRIVATE_PLAN, AccessRig, cost
from tests.fakes.hospital_ports import NOW, PLAN, dataset, shelve, unshelve

MALLORY = Identity(Kind.CLIENT, "mallory")
OTHER_PLAN = PLAN.model_copy(update={"rounds": 7})


@pytest.fixture
def rig(light_rig: AccessRig) -> AccessRig:
    """Both databases are in the other files."""
    return light_rig


async def test_a_request_is_kept_as_it_was_signed_and_the_subject_only_shown(rig: AccessRig) -> None:
    asked = rig.people.asked(uses=3, reason="To learn")
    await rig.access.access_asked(replace(asked, requested_by="the owner herself"))
    [request] = await rig.requests()
    assert (request.requester, request.requested_by) == (DANA.uri, "the owner herself")
    assert (request.purpose, request.dataset_name, request.uses_asked) == (Purpose.TRAINING, "chest", 3)
    assert (request.content_hash, request.plan_hash, request.reason) == ("c" * 64, PLAN.hash, "To learn")
    assert request.dataset_version == 1
    assert [told.standing for told in rig.listener.told] == [Standing.PENDING]


@pytest.mark.parametrize(
    "says",
    [
        {"dataset_id": "beta/chest"},
        {"dataset_id": "alpha/hands"},
        {"dataset_id": "alpha"},
        {"purpose": "statistics"},
        {"purpose": "anything"},
        {"plan_hash": "0" * 64},
        {"epsilon": "-1"},
        {"epsilon": 2},
        {"uses": 0},
        {"uses": 10**9},
        {"reason": "x" * 3000},
        {"purpose": "prediction", "model_id": "study-9/released"},
    ],
    ids=str,
)
async def test_a_request_that_cannot_be_is_denied_and_never_shown(
    rig: AccessRig, says: dict[str, Any]
) -> None:
    await rig.add_rule(purposes=frozenset(Purpose), uses=10**6)
    await rig.access.access_asked(rig.people.asked(**says))
    [told] = rig.listener.told
    assert (told.request_id, told.standing) == ("request-1", Standing.DENIED)
    assert await rig.requests() == []


async def test_the_trail_names_the_staff_who_asked_and_of_others_only_who_signed(rig: AccessRig) -> None:
    await rig.access.access_asked(replace(rig.people.asked(), requested_by="the owner herself"))
    own = AccessRequest(
        request_id="own",
        origin=Origin.STAFF,
        purpose=Purpose.STATISTICS,
        dataset_name="chest",
        content_hash="",
        requester=MALLORY.uri,
        requested_by="anna",
        reason="",
        asked=cost("1"),
        uses_asked=1,
        received_at=NOW,
    )
    await rig.store.run(lambda unit: receive(unit, own))
    received = [entry["actor"] for entry in rig.audit_entries() if entry["action"] == "request.received"]
    assert received == [DANA.uri, f"{MALLORY.uri} (anna)"]


@pytest.mark.parametrize("what", ["plan", "signature", "signer", "id"])
async def test_a_forged_request_is_denied_and_never_shown(rig: AccessRig, what: str) -> None:
    honest = rig.people.asked()
    forged = {
        "plan": replace(honest, training_plan=OTHER_PLAN.canonical_json()),
        "signature": replace(honest, statement=type(honest.statement)(payload=honest.statement.payload)),
        "signer": rig.people.asked(signer=ALPHA),
        "id": replace(honest, request_id="request-2"),
    }[what]
    await rig.access.access_asked(forged)
    assert [told.standing for told in rig.listener.told] == [Standing.DENIED]
    assert await rig.requests() == []


async def test_a_known_request_stays_what_it_was_whoever_uses_its_id(rig: AccessRig) -> None:
    await rig.access.access_asked(rig.people.asked())
    await rig.decide("request-1")
    before = await rig.request("request-1")
    await rig.access.access_asked(rig.people.asked(uses=99))
    await rig.access.access_asked(rig.people.asked(signer=MALLORY))
    assert await rig.request("request-1") == before
    assert [told.standing for told in rig.listener.told[-2:]] == [Standing.APPROVED] * 2
    assert (await rig.approval_of("request-1")).requester == DANA.uri


async def test_a_repeated_request_gets_its_decision_again(rig: AccessRig) -> None:
    asked = rig.people.asked()
    await rig.access.access_asked(asked)
    await rig.decide("request-1", Decision(approve=False, plan_hash=PLAN.hash, reason="no"))
    await rig.access.access_asked(asked)
    assert [(told.standing, told.reason) for told in rig.listener.told[-2:]] == [(Standing.DENIED, "no")] * 2


PRIVATE = {"plan": PRIVATE_PLAN, "epsilon": "2", "delta": "0.0001", "uses": 3}


async def test_the_owner_narrows_what_was_asked(rig: AccessRig) -> None:
    await rig.access.access_asked(rig.people.asked(**PRIVATE))
    granted, tomorrow = cost("1.5", "0.00001"), NOW + timedelta(days=1)
    await rig.decide("request-1", Decision(True, PRIVATE_PLAN.hash, "less", granted, 2, tomorrow))
    approval = await rig.approval_of("request-1")
    assert (approval.granted, approval.uses, approval.expires_at) == (granted, 2, tomorrow)
    told = rig.listener.told[-1]
    assert (told.granted, told.uses, told.expires_at, told.reason) == (granted, 2, tomorrow, "less")


async def test_without_narrowing_what_was_asked_is_granted(rig: AccessRig) -> None:
    await rig.access.access_asked(rig.people.asked(**PRIVATE))
    await rig.decide("request-1", Decision(True, PRIVATE_PLAN.hash))
    approval = await rig.approval_of("request-1")
    assert (approval.granted, approval.uses, approval.expires_at) == (cost("2", "0.0001"), 3, None)


@pytest.mark.parametrize(
    "more",
    [
        {"granted": cost("2.000001", "0.0001")},
        {"granted": cost("2", "0.001")},
        {"granted": FREELY},
        {"uses": 4},
        {"expires_at": NOW},
    ],
    ids=["epsilon", "delta", "without privacy", "uses", "expired at once"],
)
async def test_an_approval_never_grants_more_than_was_asked(rig: AccessRig, more: dict[str, Any]) -> None:
    await rig.access.access_asked(rig.people.asked(**PRIVATE))
    with pytest.raises(InvalidInput):
        await rig.decide("request-1", Decision(True, PRIVATE_PLAN.hash, **more))
    [request] = await rig.requests()
    assert request.state is RequestState.PENDING


async def test_a_request_is_not_approved_for_other_content_than_it_asked_for(rig: AccessRig) -> None:
    await rig.access.access_asked(rig.people.asked(uses=2))
    await unshelve(rig.datasets, "chest")
    with pytest.raises(FailedPrecondition, match="withdrawn"):
        await rig.decide("request-1")
    await shelve(rig.datasets, replace(dataset(), version=2, content_hash="d" * 64))
    with pytest.raises(FailedPrecondition, match="changed"):
        await rig.decide("request-1")


async def test_a_rule_approves_on_arrival_and_says_so(rig: AccessRig) -> None:
    rule = await rig.add_rule(plan_hashes=frozenset({PLAN.hash}), requesters=frozenset({DANA.uri}))
    await rig.access.access_asked(rig.people.asked())
    approval = await rig.approval_of("request-1")
    assert (approval.rule_id, approval.granted, approval.uses) == (rule.rule_id, FREELY, 1)
    assert rig.listener.told[-1].standing is Standing.APPROVED
    await rig.access.access_asked(rig.people.asked("request-2", signer=MALLORY))
    await rig.access.access_asked(rig.people.asked("request-3", plan=OTHER_PLAN))
    assert [told.standing for told in rig.listener.told[-2:]] == [Standing.PENDING] * 2


async def test_everything_decided_is_there_to_be_told_at_every_connect(rig: AccessRig) -> None:
    await rig.access.access_asked(rig.people.asked(uses=2))
    await rig.decide("request-1")
    await rig.access.plan_proposed(rig.people.proposal())
    await rig.access.access_asked(rig.people.asked("request-2"))
    decisions = await rig.access.decisions()
    assert [(told.request_id, told.standing) for told in decisions.requests] == [
        ("request-1", Standing.APPROVED),
        ("request-2", Standing.PENDING),
    ]
    assert [study.study_id for study in decisions.plans] == ["study-1"]


async def test_a_revocation_takes_effect_though_its_caller_hangs_up(rig: AccessRig) -> None:
    stopped = asyncio.Event()

    async def consent_changed() -> None:
        stopped.set()

    await rig.access.access_asked(rig.people.asked())
    await rig.decide("request-1")
    service = AccessService(access=rig.access, consent_changed=consent_changed)
    revoke = pb.RevokeApprovalRequest(call_id="revoke-1", approval_id="request-1")
    with calling_as(Caller(DANA, None, "call")):
        calling = asyncio.create_task(service.RevokeApproval(revoke, None))
    await asyncio.sleep(0)
    calling.cancel()
    async with asyncio.timeout(5):
        await stopped.wait()
    assert rig.listener.told[-1].standing is Standing.REVOKED
