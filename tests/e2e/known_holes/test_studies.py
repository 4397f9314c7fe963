"""Holes of PyGrid and PriMIA in training: open to anybody, closed by chance, seen by the server."""

from __future__ import annotations

import asyncio
import os
import signal
from collections.abc import AsyncIterator

import grpc
import pytest

from libs.cli.client.session import CALL_TIMEOUT_S, Session, open_session
from libs.cli.client.studies import create_and_start, fetch_weights, get_study
from libs.cli.demo import journey
from libs.cli.demo.material import DATASET_NAME, TAGS
from libs.cli.demo.staff import WITHOUT_PRIVACY, owners_profile, publish_everywhere, until
from libs.core.errors import PermissionDenied
from libs.core.ids import new_id
from libs.data.export import export_part
from libs.data.phantom import make_phantoms
from libs.fl.training_plan import TrainingPlan
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.hospital.v1 import access_pb2
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from tests.e2e.known_holes.conftest import (
    BETA,
    CLINIC,
    HOSPITALS,
    SCIENTIST,
    STAFF_ALPHA,
    Federation,
)

pytestmark = pytest.mark.timeout(240)

WHO, NO = grpc.StatusCode.UNAUTHENTICATED, grpc.StatusCode.PERMISSION_DENIED
GET_SHARES = "/trefoil.party.v1.PartyService/GetShares"
SIZE = 16
DEADLINE_S = 10.0


def plan() -> TrainingPlan:
    """One round with all three hospitals in it, two of which suffice; nobody may fetch the weights."""
    return TrainingPlan.model_validate(
        {
            "model": "small_cnn",
            "image_size": SIZE,
            "rounds": 1,
            "local_epochs": 1,
            "batch_size": 16,
            "learning_rate": 0.05,
            "quorum": 2,
            "round_deadline_s": DEADLINE_S,
            "dataset_tags": TAGS,
            "model_access": {"download": "nobody"},
        }
    )


@pytest.fixture(scope="module")
def published(running: Federation) -> Federation:
    """Every hospital has published a few images."""
    for seed, hospital in enumerate(HOSPITALS):
        folder = running.cluster.folder(f"hospital-{hospital}") / "data" / DATASET_NAME
        export_part(make_phantoms(32, size=SIZE, seed=seed), folder)
    asyncio.run(publish_everywhere(running.cluster))
    return running


@pytest.fixture
async def scientist(published: Federation) -> AsyncIterator[Session]:
    async with open_session(published.cluster.profile("scientist")) as session:
        await journey.find_data(published.cluster, session)  # descriptions take a moment to arrive
        yield session
    await published.close()
    published.cluster.check()


async def test_who_wrote_a_rule_is_who_called_whatever_the_message_says(published: Federation) -> None:
    """PyGrid: a message field `current_user` is believed. The other messages are in `test_wire.py`."""
    rule = access_pb2.Rule(
        purposes=[access_pb2.PURPOSE_TRAINING],
        dataset_names=[DATASET_NAME],
        at_most=types_pb2.PrivacyCost(epsilon="0.5", delta="0.00001"),
        uses=1,
        created_by="spiffe://trefoil.local/client/somebody-else",
    )
    async with open_session(owners_profile(published.cluster, "alpha")) as owner:
        added = (
            await owner.access.AddRule(access_pb2.AddRuleRequest(call_id=new_id("call"), rule=rule))
        ).rule
    assert added.created_by == f"{STAFF_ALPHA.uri} (owner)"


async def new_study(scientist: Session) -> coordinator_pb2.Study:
    ids = [f"{hospital}/{DATASET_NAME}" for hospital in HOSPITALS]
    return await create_and_start(scientist, plan=plan(), title="Holes", dataset_ids=ids)


async def pending(owner: Session, study_id: str) -> access_pb2.AccessRequest | None:
    answer = await owner.access.ListRequests(access_pb2.ListRequestsRequest(pending_only=True))
    return next((request for request in answer.requests if request.study_id == study_id), None)


async def test_nothing_is_trained_and_nothing_handed_out_before_every_owner_approves(
    published: Federation, scientist: Session
) -> None:
    """PyGrid: `host-training` is open to anybody, and `/get-model` (629) is not protected."""
    study = await new_study(scientist)
    for hospital in HOSPITALS:
        async with open_session(owners_profile(published.cluster, hospital)) as owner:
            asked = await until(lambda: pending(owner, study.study_id), "The study did not arrive")
            assert asked.state == access_pb2.REQUEST_STATE_PENDING
            ledger = await owner.access.ReadLedger(access_pb2.ReadLedgerRequest())
            assert {entry.kind for entry in ledger.entries} == {"budget set"}
    again = coordinator_pb2.StartStudyRequest(study_id=study.study_id)
    await scientist.coordinator.StartStudy(again, timeout=CALL_TIMEOUT_S)
    waiting = await get_study(scientist, study.study_id)
    assert waiting.state == coordinator_pb2.STUDY_STATE_AWAITING_APPROVAL
    assert list(waiting.rounds) == []

    vector = types_pb2.VectorRef(model_id=study.latest_model_id)
    request = party_pb2.GetSharesRequest(vector=vector).SerializeToString()
    clinic = published.token_of("client-clinic")
    assert await published.answer("party-0", GET_SHARES, CLINIC, clinic, request) is NO
    assert await published.answer("party-0", GET_SHARES, SCIENTIST, None, request) is WHO
    # The plan says download nobody: not even whoever made the study, who has the role that the call needs.
    with pytest.raises(PermissionDenied):
        await fetch_weights(scientist, model_id=study.latest_model_id, plan=plan())
    await scientist.coordinator.CancelStudy(coordinator_pb2.CancelStudyRequest(study_id=study.study_id))


async def test_a_round_closes_at_its_deadline_without_another_message(
    published: Federation, scientist: Session
) -> None:
    """PyGrid: a cycle closes only when another update arrives. Here one hospital hangs and says nothing.

    And PyGrid's server sees every raw update, where here nobody can fetch one.
    """
    study = await new_study(scientist)
    await approve(published, "gamma", study.study_id)
    hung = published.cluster.process("hospital-gamma").pid
    os.kill(hung, signal.SIGSTOP)
    try:
        for hospital in ("alpha", "beta"):
            await approve(published, hospital, study.study_id)
        completed = await first_round(scientist, study.study_id)
    finally:
        os.kill(hung, signal.SIGCONT)
    assert {uri.rpartition("/")[2] for uri in completed.participant_identities} == set(HOSPITALS)
    assert {uri.rpartition("/")[2] for uri in completed.survivor_identities} == {"alpha", "beta"}
    took = completed.closed_at.ToDatetime() - completed.opened_at.ToDatetime()
    assert DEADLINE_S <= took.total_seconds() < DEADLINE_S + 15

    contribution = types_pb2.RoundRef(study_id=study.study_id, round=1)
    vector = types_pb2.VectorRef(contribution=contribution)
    request = party_pb2.GetSharesRequest(vector=vector).SerializeToString()
    token = published.token_of("client-scientist")
    assert await published.answer("party-0", GET_SHARES, SCIENTIST, token, request) is NO
    worker = published.token_of("hospital-beta", "worker.token")
    assert await published.answer("party-0", GET_SHARES, BETA, worker, request) is NO


async def first_round(scientist: Session, study_id: str) -> coordinator_pb2.Round:
    """Once it has been added up. A busy machine may need a second try for two updates in time."""
    async with asyncio.timeout(90):
        while True:
            study = await get_study(scientist, study_id)
            assert not study.failure, study.failure
            if study.rounds_done:
                return study.rounds[0]
            await asyncio.sleep(0.2)


async def approve(federation: Federation, hospital: str, study_id: str) -> None:
    """The owner approves the study as it is."""
    async with open_session(owners_profile(federation.cluster, hospital)) as owner:
        asked = await until(lambda: pending(owner, study_id), "The study did not arrive")
        decision = access_pb2.DecideRequestRequest(
            call_id=new_id("call"),
            request_id=asked.request_id,
            plan_hash=asked.plan_hash,
            approve=True,
            granted=WITHOUT_PRIVACY,
            uses=1,
        )
        await owner.access.DecideRequest(decision, timeout=CALL_TIMEOUT_S)
