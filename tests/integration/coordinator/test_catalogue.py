"""Who is there and what they publish, as scientists see it."""

from __future__ import annotations

import grpc
import pytest

from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from libs.rpc.identity import Identity, Kind
from libs.rpc.tokens import Role
from tests.fakes.federation import Federation, eventually
from tests.fakes.hospital import FakeHospital, Habits
from tests.fakes.rpc_rig import code_of


async def search(federation: Federation, **query: object) -> pb.SearchDatasetsResponse:
    stub = await federation.stub()
    found: pb.SearchDatasetsResponse = await stub.SearchDatasets(pb.SearchDatasetsRequest(**query))
    return found


async def publish(federation: Federation, name: str, dataset: str, **fields: object) -> None:
    federation.hospitals[name].say(dataset_published=pb.Dataset(name=dataset, **{"images": 1, **fields}))

    async def published() -> bool:
        found = await search(federation, name_contains=dataset)
        return f"{name}/{dataset}" in [entry.dataset_id for entry in found.datasets]

    await eventually(published)


async def test_a_search_matches_all_tags_in_any_case_and_the_name_and_size(federation: Federation) -> None:
    await publish(federation, "alpha", "Children", tags=["X-Ray", "Pneumonia"], images=50)
    await publish(federation, "beta", "Adults", tags=["x-ray"], images=500)

    async def ids(**query: object) -> list[str]:
        return [dataset.dataset_id for dataset in (await search(federation, **query)).datasets]

    assert await ids(tags=["x-ray"]) == ["alpha/Children", "beta/Adults"]
    assert await ids(tags=["X-RAY", " pneumonia "]) == ["alpha/Children"]
    assert await ids(tags=["x-ray"], min_images=51) == ["beta/Adults"]
    assert await ids(name_contains="child") == ["alpha/Children"]
    assert await ids(name_contains="%") == []


async def test_an_unknown_tag_finds_nothing(federation: Federation) -> None:
    found = await search(federation, tags=["no-such-tag"])
    assert not found.datasets
    assert not found.next_page_token


async def test_pages_neither_repeat_nor_skip_when_datasets_come_and_go(federation: Federation) -> None:
    for number in range(6):
        await publish(federation, "alpha", f"set-{number}", tags=["many"])
    first = await search(federation, tags=["many"], page_size=3)
    federation.hospitals["alpha"].say(dataset_withdrawn=pb.DatasetWithdrawn(name="set-1"))
    await publish(federation, "alpha", "set-00", tags=["many"])
    second = await search(federation, tags=["many"], page_size=3, page_token=first.next_page_token)
    names = [dataset.name for page in (first, second) for dataset in page.datasets]
    assert names == [f"set-{number}" for number in range(6)]
    assert not second.next_page_token


async def test_a_page_token_of_another_search_is_refused(federation: Federation) -> None:
    first = await search(federation, page_size=1)
    for query in ({"tags": ["other"]}, {"page_token": "rubbish"}):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await search(federation, **{"page_token": first.next_page_token, **query})
        assert code_of(raised.value) == "invalid_input"


async def test_a_page_that_is_too_large_is_refused(federation: Federation) -> None:
    with pytest.raises(grpc.aio.AioRpcError, match="1000"):
        await search(federation, page_size=1001)


async def test_a_wrong_dataset_is_ignored_and_the_stream_goes_on(federation: Federation) -> None:
    alpha = federation.hospitals["alpha"]
    for wrong in (
        pb.Dataset(name="", images=1),
        pb.Dataset(name="a/b", images=1),
        pb.Dataset(name="none", images=0),
        pb.Dataset(name="x" * 200, images=1),
        pb.Dataset(name="tagged", images=1, tags=[str(number) for number in range(100)]),
    ):
        alpha.say(dataset_published=wrong)
    alpha.say(calibration=pb.CalibrationReport(study_id="study-none", bound_bits={"conv": 3}))
    alpha.say(contribution_sent=pb.ContributionSent(study_id="study-none", round=1))
    await publish(federation, "alpha", "right")
    found = await search(federation)
    assert [entry.dataset_id for entry in found.datasets if entry.hospital_name == "Alpha"] == [
        "alpha/right",
        "alpha/xrays",
    ]


async def test_a_hospital_publishes_under_its_certificates_name_only(federation: Federation) -> None:
    forged = {"dataset_id": "beta/mine", "hospital_identity": federation.hospitals["beta"].identity.uri}
    await publish(federation, "alpha", "mine", **forged)
    (found,) = (await search(federation, name_contains="mine")).datasets
    assert found.hospital_identity == federation.hospitals["alpha"].identity.uri


async def test_nodes_are_online_while_their_stream_lasts(federation: Federation) -> None:
    stub = await federation.stub()

    async def online() -> list[bool]:
        return [node.online for node in (await stub.DescribeFederation(pb.DescribeFederationRequest())).nodes]

    assert await online() == [True] * 3
    await federation.hospitals["beta"].detach()

    async def beta_left() -> bool:
        return await online() == [True, False, True]

    await eventually(beta_left)
    described = await stub.DescribeFederation(pb.DescribeFederationRequest())
    assert all(node.last_seen.seconds > 0 for node in described.nodes)
    assert [party.endpoint.identity for party in described.parties] == [
        f"spiffe://trefoil.local/party/{index}" for index in range(3)
    ]


async def test_a_second_stream_of_one_hospital_replaces_the_first(federation: Federation) -> None:
    first = federation.hospitals["alpha"]
    second = FakeHospital(first.identity, federation.parties, Habits())
    await second.attach(await federation.stub(first.identity, Role.WORKER))
    await eventually(lambda: first.error is not None)
    assert code_of(first.error) == "failed_precondition"
    second.publish("again", images=1)

    async def online() -> bool:
        found = await search(federation, name_contains="again")
        return [entry.online for entry in found.datasets] == [True]

    await eventually(online)
    await second.detach()


async def test_a_stream_that_does_not_begin_with_hello_is_refused(federation: Federation) -> None:
    stub = await federation.stub(Identity(Kind.HOSPITAL, "alpha"), Role.WORKER)
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in stub.Attach(iter([pb.HospitalEvent(heartbeat=pb.Heartbeat())])):
            pass
    assert code_of(raised.value) == "invalid_input"


async def test_a_search_matches_modality_size_and_presence(federation: Federation) -> None:
    await publish(federation, "alpha", "Hands", modality="CT scan", images=50)
    await publish(federation, "beta", "Feet", modality="ct SCAN", images=500)

    async def ids(**query: object) -> list[str]:
        return [dataset.dataset_id for dataset in (await search(federation, **query)).datasets]

    assert await ids(modality="ct scan") == ["alpha/Hands", "beta/Feet"]
    assert await ids(modality="ct") == []
    assert await ids(modality="ct scan", max_images=50) == ["alpha/Hands"]
    await federation.hospitals["alpha"].detach()

    async def only_beta() -> bool:
        return await ids(modality="ct scan", online_only=True) == ["beta/Feet"]

    await eventually(only_beta)
    (away,) = (await search(federation, modality="ct scan", max_images=50)).datasets
    assert (away.online, away.last_seen.seconds > 0) == (False, True)


async def test_nodes_say_their_release_and_how_much_they_publish(federation: Federation) -> None:
    await publish(federation, "alpha", "more")
    described = await (await federation.stub()).DescribeFederation(pb.DescribeFederationRequest())
    assert [(node.version, node.datasets) for node in described.nodes] == [
        ("test", 2),
        ("test", 1),
        ("test", 1),
    ]
