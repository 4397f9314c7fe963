"""A coordinator that was stopped anywhere goes on from its database."""

from __future__ import annotations

import time

import grpc
import pytest

from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from tests.fakes.federation import Federation, eventually, training_plan
from tests.fakes.rpc_rig import code_of


async def restart(federation: Federation) -> None:
    await federation.stop_coordinator()
    for hospital in federation.hospitals.values():
        await hospital.detach()
    await federation.start_coordinator()


async def test_an_open_round_goes_on_with_its_deadline_after_a_restart(federation: Federation) -> None:
    gamma = federation.hospitals["gamma"]
    gamma.habits.trains = lambda _order: False
    study_id = await federation.launch(training_plan(rounds=1, round_deadline_s=600))
    await eventually(lambda: gamma.ordered("train"))

    async def others_sent() -> bool:
        return federation.parties[2].contributions.get((study_id, 1, 0), set()) >= {
            federation.hospitals["alpha"].identity.uri,
            federation.hospitals["beta"].identity.uri,
        }

    await eventually(others_sent)
    await restart(federation)
    gamma.habits.trains = lambda _order: True
    for name in federation.hospitals:
        await federation.attach(name)
    study = await federation.ended(study_id)
    assert study.state == pb.STUDY_STATE_READY, study.failure
    assert len(federation.parties[0].rounds) == 2  # the round was not opened a second time
    before, after = gamma.ordered("train")
    assert before == after
    assert len(study.rounds[0].survivor_identities) == 3


async def test_a_round_whose_deadline_passed_meanwhile_closes_at_once(federation: Federation) -> None:
    gamma = federation.hospitals["gamma"]
    gamma.habits.trains = lambda order: order.WhichOneof("order") == "release"
    study_id = await federation.launch(training_plan(rounds=1, round_deadline_s=1.0))
    await eventually(lambda: len(federation.parties[2].contributions.get((study_id, 1, 0), ())) == 2)
    await restart(federation)
    for name in federation.hospitals:
        await federation.attach(name)
    study = await federation.ended(study_id)
    assert study.state == pb.STUDY_STATE_READY, study.failure
    assert len(study.rounds[0].survivor_identities) == 2


async def test_a_round_being_closed_is_closed_after_the_restart(federation: Federation) -> None:
    federation.parties[1].hanging.add("CloseRound")
    study_id = await federation.launch(training_plan(rounds=1))
    await eventually(lambda: federation.parties[0].closed)
    await federation.stop_coordinator()
    federation.parties[1].hanging.clear()
    await restart(federation)
    for name in federation.hospitals:
        await federation.attach(name)
    study = await federation.ended(study_id)
    assert study.state == pb.STUDY_STATE_READY, study.failure
    assert len(study.rounds[0].survivor_identities) == 3


async def test_stopping_ends_streams_and_watchers_at_once_and_tells_them_so(federation: Federation) -> None:
    federation.hospitals["gamma"].habits.approves = None
    study_id = await federation.launch(training_plan())
    stub = await federation.stub()
    watching = aiter(stub.WatchStudy(pb.WatchStudyRequest(study_id=study_id)))
    await anext(watching)
    await eventually(lambda: federation.hospitals["gamma"].ordered("proposal"))
    began = time.monotonic()
    assert federation.coordinator is not None
    await federation.coordinator.stop(grace_s=10)
    federation.coordinator = None
    assert time.monotonic() - began < 3
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in watching:
            pass
    assert code_of(raised.value) == "unavailable"
    await eventually(lambda: federation.hospitals["alpha"].error is not None)
    assert code_of(federation.hospitals["alpha"].error) == "unavailable"


async def test_the_catalogue_and_undecided_proposals_survive(federation: Federation) -> None:
    federation.hospitals["gamma"].habits.approves = None
    study_id = await federation.launch(training_plan(rounds=1))
    await eventually(lambda: federation.hospitals["gamma"].ordered("proposal"))
    await restart(federation)
    found = await (await federation.stub()).SearchDatasets(pb.SearchDatasetsRequest())
    assert [(dataset.dataset_id, dataset.online) for dataset in found.datasets] == [
        ("alpha/xrays", False),
        ("beta/xrays", False),
        ("gamma/xrays", False),
    ]
    federation.hospitals["gamma"].habits.approves = True
    for name in federation.hospitals:
        await federation.attach(name)
    assert (await federation.ended(study_id)).state == pb.STUDY_STATE_READY


async def test_a_hospital_that_was_away_is_told_the_end_once(federation: Federation) -> None:
    gamma = federation.hospitals["gamma"]
    study_id = (await federation.create(training_plan())).study.study_id
    await eventually(lambda: gamma.ordered("proposal"))
    await gamma.detach()
    await (await federation.stub()).CancelStudy(pb.CancelStudyRequest(study_id=study_id))
    await restart(federation)
    await federation.attach("gamma")
    await eventually(lambda: [o.study_id for o in gamma.ordered("study_ended")] == [study_id])
    await gamma.detach()
    await federation.attach("gamma")
    gamma.publish("more", images=1)
    stub = await federation.stub()

    async def published() -> bool:
        return bool((await stub.SearchDatasets(pb.SearchDatasetsRequest(name_contains="more"))).datasets)

    await eventually(published)
    assert len(gamma.ordered("study_ended")) == 1
