"""Studies from creation to a model that can be asked, over real connections."""

from __future__ import annotations

from fractions import Fraction

import grpc
import pytest

from libs.fl.metrics import METRICS_LENGTH
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from tests.fakes.federation import CLINIC, PARAMETERS, SCIENTIST, Federation, eventually, training_plan
from tests.fakes.hospital import BOUNDS
from tests.fakes.rpc_rig import code_of

HOSPITALS = [f"spiffe://trefoil.local/hospital/{name}" for name in ("alpha", "beta", "gamma")]


async def test_a_study_goes_from_creation_to_a_model_that_can_be_asked(federation: Federation) -> None:
    study_id = await federation.launch(training_plan())
    study = await federation.ended(study_id)
    assert study.state == pb.STUDY_STATE_READY, study.failure
    assert study.rounds_done == study.rounds_planned == 2
    assert study.latest_model_id == f"{study_id}/round-2"
    assert study.released_model_id == f"{study_id}/released"
    assert [list(r.survivor_identities) for r in study.rounds] == [HOSPITALS] * 3
    assert all(r.bytes_between_parties == 300 for r in study.rounds)
    models = await (await federation.stub()).ListModels(pb.ListModelsRequest())
    assert [(model.model_id, model.ready) for model in models.models] == [(f"{study_id}/released", True)]


async def test_weights_are_exact_fractions_of_images_and_sum_to_one(federation: Federation) -> None:
    """By the images in training; alike in the release, in which all send the same."""
    by_images, alike = [Fraction(1, 6), Fraction(1, 3), Fraction(1, 2)], [Fraction(1, 3)] * 3
    await federation.ended(await federation.launch(training_plan(rounds=1)))
    for party in federation.parties:
        for opening, expected in zip(party.rounds.values(), (by_images, alike), strict=True):
            weights = [Fraction(p.weight.numerator, p.weight.denominator) for p in opening.participants]
            assert [p.hospital_identity for p in opening.participants] == HOSPITALS
            assert weights == expected
    (train,) = federation.hospitals["beta"].ordered("train")
    assert (train.weight.numerator, train.weight.denominator) == (1, 3)


async def test_the_parties_learn_who_may_deal_and_read_each_version(federation: Federation) -> None:
    study_id = await federation.launch(training_plan(rounds=1))
    await federation.ended(study_id)
    party = federation.parties[0]
    initial = party.models[f"{study_id}/round-0"]
    assert initial.length == PARAMETERS
    assert initial.dealer_identity == SCIENTIST.uri
    assert set(initial.reader_identities) == {SCIENTIST.uri, *HOSPITALS}
    train, release = party.rounds[study_id, 1, 0], party.rounds[study_id, 2, 0]
    assert (train.base_model_id, train.result_model_id) == (f"{study_id}/round-0", f"{study_id}/round-1")
    assert (train.update_length, train.metrics_length) == (PARAMETERS, METRICS_LENGTH)
    assert not train.plan
    assert (release.base_model_id, release.result_model_id) == ("", f"{study_id}/released")
    assert (release.update_length, release.metrics_length) == (7, 0)
    assert release.plan
    assert not release.reader_identities
    assert not release.metrics_reader_identities
    assert set(train.reader_identities) == set(train.metrics_reader_identities) == {SCIENTIST.uri, *HOSPITALS}


async def test_the_parties_learn_who_may_ask_and_that_nobody_may_download(federation: Federation) -> None:
    access = {"ask": [CLINIC.uri], "max_predictions": 100, "download": "nobody"}
    study_id = await federation.launch(training_plan(rounds=1, model_access=access))
    await federation.ended(study_id)
    party = federation.parties[0]
    train, release = party.rounds[study_id, 1, 0], party.rounds[study_id, 2, 0]
    assert set(party.models[f"{study_id}/round-0"].reader_identities) == set(HOSPITALS)
    assert set(train.reader_identities) == set(HOSPITALS)
    assert set(train.metrics_reader_identities) == {SCIENTIST.uri, *HOSPITALS}
    allowed = types_pb2.ModelUse(asker_identities=[CLINIC.uri, SCIENTIST.uri], max_predictions=100)
    assert release.use == allowed
    assert train.use == types_pb2.ModelUse()
    listed = await (await federation.stub()).ListModels(pb.ListModelsRequest())
    assert [model.use for model in listed.models] == [allowed]


async def test_a_plan_that_lets_anyone_ask_names_nobody(federation: Federation) -> None:
    study_id = await federation.launch(training_plan(rounds=1, model_access={"ask_anyone": True}))
    await federation.ended(study_id)
    assert federation.parties[0].rounds[study_id, 2, 0].use == types_pb2.ModelUse(anyone=True)


async def test_the_release_is_compiled_from_the_largest_bounds(federation: Federation) -> None:
    federation.hospitals["gamma"].habits.bounds = {**BOUNDS, "conv": 9}
    await federation.ended(await federation.launch(training_plan(rounds=1)))
    (release,) = federation.hospitals["alpha"].ordered("release")
    assert dict(release.bound_bits) == {**BOUNDS, "conv": 9}
    assert release.compiled_plan_hash == "c" * 64


async def test_the_same_request_gives_the_same_study_once(federation: Federation) -> None:
    first = await federation.create(training_plan())
    second = await federation.create(training_plan())
    assert first.study.study_id == second.study.study_id
    listed = await (await federation.stub()).ListStudies(pb.ListStudiesRequest())
    assert len(listed.studies) == 1
    assert len(federation.hospitals["alpha"].ordered("proposal")) == 1


async def test_a_request_id_cannot_stand_for_two_studies(federation: Federation) -> None:
    await federation.create(training_plan())
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await federation.create(training_plan(rounds=5))
    assert code_of(raised.value) == "already_exists"


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"training_plan": b'{"model": "small_cnn"}'}, "learning_rate"),
        ({"dataset_ids": ["alpha/none", "beta/xrays"]}, "'alpha/none'"),
        ({"dataset_ids": ["alpha/xrays", "alpha/more"]}, "one dataset of each hospital"),
        ({"dataset_ids": ["alpha/xrays"]}, "quorum"),
        ({"dataset_ids": []}, "at least one dataset"),
        ({"parameters": PARAMETERS + 1}, "parameters"),
        ({"title": ""}, "title"),
        ({"request_id": ""}, "request id"),
    ],
)
async def test_a_wrong_request_is_refused_in_words_and_nothing_is_stored(
    federation: Federation, changes: dict[str, object], said: str
) -> None:
    federation.hospitals["alpha"].publish("more", images=5)
    stub = await federation.stub()
    more = pb.SearchDatasetsRequest(name_contains="more")

    async def published() -> bool:
        return bool((await stub.SearchDatasets(more)).datasets)

    await eventually(published)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await federation.create(training_plan(), **changes)
    assert code_of(raised.value) == "invalid_input"
    assert said in str(raised.value.details())
    assert not (await stub.ListStudies(pb.ListStudiesRequest())).studies
    assert not federation.parties[0].models


async def test_a_dataset_of_an_offline_hospital_is_refused(federation: Federation) -> None:
    await federation.hospitals["gamma"].detach()
    stub = await federation.stub()

    async def offline() -> bool:
        nodes = (await stub.DescribeFederation(pb.DescribeFederationRequest())).nodes
        return [node.online for node in nodes] == [True, True, False]

    await eventually(offline)
    with pytest.raises(grpc.aio.AioRpcError, match="offline"):
        await federation.create(training_plan())


async def test_only_its_creator_starts_or_cancels_a_study(federation: Federation) -> None:
    from libs.rpc.identity import Identity, Kind

    study_id = (await federation.create(training_plan())).study.study_id
    stub = await federation.stub(Identity(Kind.CLIENT, "eve"))
    for call in (
        stub.StartStudy(pb.StartStudyRequest(study_id=study_id)),
        stub.CancelStudy(pb.CancelStudyRequest(study_id=study_id)),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await call
        assert code_of(raised.value) == "permission_denied"


async def test_a_cancelled_study_ends_everywhere(federation: Federation) -> None:
    for hospital in federation.hospitals.values():
        hospital.habits.trains = lambda _order: False
    study_id = await federation.launch(training_plan())
    await eventually(lambda: federation.hospitals["alpha"].ordered("train"))
    await (await federation.stub()).CancelStudy(pb.CancelStudyRequest(study_id=study_id))
    study = await federation.ended(study_id)
    assert study.state == pb.STUDY_STATE_CANCELLED
    await eventually(lambda: federation.parties[2].abandoned == [(study_id, 1, 0)])
    await eventually(lambda: federation.hospitals["alpha"].ordered("study_ended"))


async def test_a_study_cancelled_while_a_round_closes_stays_as_it_was(federation: Federation) -> None:
    federation.parties[1].hanging.add("CloseRound")
    study_id = await federation.launch(training_plan())
    await eventually(lambda: federation.parties[0].closed)
    stub = await federation.stub()
    cancelled = (await stub.CancelStudy(pb.CancelStudyRequest(study_id=study_id))).study
    assert cancelled.state == pb.STUDY_STATE_CANCELLED
    federation.parties[1].hanging.clear()
    federation.parties[1].released.set()
    await eventually(lambda: federation.parties[0].abandoned)
    assert await federation.study(study_id) == cancelled


async def test_progress_reaches_watchers_and_is_forgotten_at_the_end(federation: Federation) -> None:
    hospital = federation.hospitals["alpha"]
    hospital.habits.trains = lambda order: order.WhichOneof("order") == "release"
    study_id = await federation.launch(training_plan(rounds=1, round_deadline_s=1.0))
    await eventually(lambda: hospital.ordered("train"))
    hospital.say(
        progress=pb.TrainingProgress(study_id=study_id, round=1, phase=pb.PHASE_TRAINING, fraction=0.5)
    )
    seen = []
    async for answer in (await federation.stub()).WatchStudy(pb.WatchStudyRequest(study_id=study_id)):
        seen.append((answer.study.members[0].phase, answer.study.members[0].fraction))
    assert (pb.PHASE_TRAINING, 0.5) in seen
    assert seen[-1] == (pb.PHASE_UNSPECIFIED, 0.0)


async def test_a_study_that_does_not_exist_is_not_found(federation: Federation) -> None:
    stub = await federation.stub()
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await stub.GetStudy(pb.GetStudyRequest(study_id="study-none"))
    assert code_of(raised.value) == "not_found"
    with pytest.raises(grpc.aio.AioRpcError):
        async for _ in stub.WatchStudy(pb.WatchStudyRequest(study_id="study-none")):
            pass
