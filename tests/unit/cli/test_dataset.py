"""`trefoil dataset`: what staff says and scientists see."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from libs.cli.dataset_views import counts_in_words, images_in_words, schema_in_words
from libs.cli.main import app
from libs.core.errors import FailedPrecondition, NotFound
from libs.data.dataset import load_dataset
from libs.data.disclosure import CountDisclosure, disclose
from libs.data.identification import Attribute, IdentificationReport
from libs.data.mock import make_mock, recipe_for
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2
from tests.fakes.hospital_ports import NOW, SCHEMA

EXACT, ROUNDED, WITHHELD = 1, 2, 3
COUNTS = disclose({"NORMAL": 4, "PNEUMONIA": 16}, patients=7, policy=CountDisclosure.ROUNDED)
RECIPE = recipe_for(SCHEMA, COUNTS, seed=5, images=40)

REPORT = IdentificationReport(
    files=20,
    files_with_attributes=19,
    files_with_private_elements=3,
    burned_in=1,
    burned_in_untold=18,
    said_removed=2,
    attributes=(
        Attribute(name="PatientName", action="Z", files=19),
        Attribute(name="SOPInstanceUID", action="U", files=20),
    ),
)


def entry(**fields: Any) -> coordinator_pb2.Dataset:
    message = coordinator_pb2.Dataset(
        dataset_id="alpha/chest",
        name="chest",
        description="Ours [bold]",
        tags=["x-ray"],
        modality=SCHEMA.modality,
        images=COUNTS.about_images,
        hospital_name="Alpha",
        online=True,
        version=2,
        licence="CC-BY-4.0",
        content_hash="c" * 64,
        schema=SCHEMA.canonical_json(),
        disclosed_counts={"NORMAL": 0, "PNEUMONIA": 10},
        disclosure=coordinator_pb2.COUNT_DISCLOSURE_ROUNDED,
        mock_recipe=RECIPE.canonical_json(),
        mock_hash=make_mock(RECIPE).content_hash,
    )
    message.published_at.FromDatetime(NOW)
    message.MergeFrom(coordinator_pb2.Dataset(**fields))
    return message


class _Services:
    """A hospital node and a coordinator that answer what a test lays out for them."""

    def __init__(self) -> None:
        self.hospital = self.coordinator = self
        self.asked: list[Any] = []
        self.entries = [entry(dataset_id="beta/chest"), entry()]

    async def PublishDataset(self, request: Any, *, timeout: float) -> Any:  # noqa: ASYNC109 - as gRPC
        self.asked.append(request)
        dataset = hospital_pb2.Dataset(
            name=request.name,
            version=1,
            images=20,
            patients=7,
            images_per_class={"NORMAL": 4, "PNEUMONIA": 16},
            disclosure=request.disclosure,
            schema=SCHEMA.canonical_json(),
        )
        return hospital_pb2.PublishDatasetResponse(dataset=dataset, identification=REPORT.canonical_json())

    async def InspectDataset(self, request: Any, *, timeout: float) -> Any:  # noqa: ASYNC109 - as gRPC
        self.asked.append(request)
        return hospital_pb2.InspectDatasetResponse(
            images=20,
            patients=7,
            images_per_class={"NORMAL": 4, "PNEUMONIA": 16},
            schema=SCHEMA.canonical_json(),
            identification=REPORT.canonical_json() if request.path.endswith("dicom") else b"",
        )

    async def WithdrawDataset(self, request: Any, *, timeout: float) -> Any:  # noqa: ASYNC109 - as gRPC
        self.asked.append(request)
        return hospital_pb2.WithdrawDatasetResponse()

    async def ListDatasetVersions(self, request: Any, *, timeout: float) -> Any:  # noqa: ASYNC109 - as gRPC
        old = hospital_pb2.Dataset(name=request.name, version=1, content_hash="a" * 64)
        old.withdrawn_at.FromDatetime(NOW)
        new = hospital_pb2.Dataset(name=request.name, version=2, content_hash="b" * 64)
        return hospital_pb2.ListDatasetVersionsResponse(versions=[new, old])

    async def SearchDatasets(self, request: Any, *, timeout: float) -> Any:  # noqa: ASYNC109 - as gRPC
        self.asked.append(request)
        return coordinator_pb2.SearchDatasetsResponse(datasets=self.entries)


Run = Callable[..., str]


@pytest.fixture
def services(monkeypatch: pytest.MonkeyPatch) -> _Services:
    made = _Services()
    monkeypatch.setattr("libs.cli.client.session.open_session", lambda profile: nullcontext(made))
    return made


@pytest.fixture
def trefoil(services: _Services) -> Run:
    def run(*arguments: str) -> str:
        result = CliRunner().invoke(app, ["dataset", *arguments, "--profile", "p.toml"])
        if result.exception is not None:
            raise result.exception
        return result.stdout

    return run


def test_publishing_says_licence_counts_and_mock_and_who_asks_again_can_say_so(
    trefoil: Run, services: _Services
) -> None:
    options = ["--licence", "CC-BY-4.0", "--counts", "withheld", "--mock-images", "50"]
    told = trefoil("publish", "chest", "/data/chest", *options, "--request-id", "request-7")
    [request] = services.asked
    assert (request.licence, request.disclosure, request.mock_images) == ("CC-BY-4.0", WITHHELD, 50)
    assert request.request_id == "request-7"
    assert "images: withheld; by class: withheld" in told
    assert "the average of the others'" in told


def test_publishing_says_which_identifying_elements_there_are(trefoil: Run, services: _Services) -> None:
    told = trefoil("publish", "chest", "/data/chest")
    assert "in 19 of 20 DICOM" in told
    assert "PatientName 19" in told
    assert "1 kinds of UID" in told
    assert "1 say yes, 18 do not say" in told
    report = json.loads(trefoil("publish", "chest", "/data/chest", "--json"))["identification"]
    assert report["attributes"][0] == {"name": "PatientName", "action": "Z", "files": 19}


def test_inspecting_publishes_nothing(trefoil: Run, services: _Services) -> None:
    told = trefoil("inspect", "/data/dicom")
    assert "Nothing was published" in told
    assert "PatientName 19" in told
    assert "No DICOM files" in trefoil("inspect", "/data/folder")
    found = json.loads(trefoil("inspect", "/data/dicom", "--json"))
    assert (found["images"], found["identification"]["burned_in"]) == (20, 1)
    assert {type(request).__name__ for request in services.asked} == {"InspectDatasetRequest"}


def test_images_may_come_from_a_server_of_the_node_s_settings(trefoil: Run, services: _Services) -> None:
    trefoil("publish", "chest", "/data/labels.csv", "--dicomweb", "pacs")
    assert (services.asked[0].dicomweb, services.asked[0].path) == ("pacs", "/data/labels.csv")


def test_unless_told_otherwise_counts_are_rounded_and_each_request_has_an_id_of_its_own(
    trefoil: Run, services: _Services
) -> None:
    for _ in range(2):
        trefoil("publish", "chest", "/data/chest")
        trefoil("withdraw", "chest")
    assert {request.disclosure for request in services.asked[::2]} == {ROUNDED}
    assert len({request.request_id for request in services.asked} - {""}) == 4


def test_versions_are_listed_with_when_they_ended(trefoil: Run) -> None:
    told = trefoil("versions", "chest")
    assert "bbbbbbbbbbbb…" in told
    assert "2026-11-02 09:00 UTC" in told
    newest, oldest = json.loads(trefoil("versions", "chest", "--json"))
    assert (newest["withdrawn_at"], oldest["version"]) == (None, 1)


def test_a_search_passes_every_wish_on(trefoil: Run, services: _Services) -> None:
    wishes = ["--tag", "x-ray", "--modality", "chest X-ray", "--min-images", "5", "--max-images", "90"]
    told = trefoil("search", *wishes, "--online")
    request = services.asked[0]
    assert (list(request.tags), request.modality, request.online_only) == (["x-ray"], "chest X-ray", True)
    assert (request.min_images, request.max_images) == (5, 90)
    assert "about 20" in told


def test_show_tells_all_that_the_catalogue_knows_in_words(trefoil: Run) -> None:
    told = " ".join(trefoil("show", "alpha/chest").split())
    assert "alpha/chest, version 2, of Alpha (attached now)." in told
    assert "Ours [bold]" in told
    for words in ("about 20", "<10 NORMAL, 10 to 19 PNEUMONIA", "CC-BY-4.0", "c" * 64, "28 pixels wide"):
        assert words in told
    assert "trefoil dataset mock alpha/chest" in told
    shown = json.loads(trefoil("show", "alpha/chest", "--json"))
    assert shown["disclosed_counts"] == {"NORMAL": [0, 9], "PNEUMONIA": [10, 19]}
    assert shown["schema"]["height"] == {"low": 28, "high": 28}


@pytest.mark.parametrize("unknown", ["alpha/ches", "gamma/chest", "chest", ""])
def test_a_data_set_that_is_not_there_is_named(trefoil: Run, unknown: str) -> None:
    with pytest.raises(NotFound, match="dataset search"):
        trefoil("show", unknown)


def test_a_mock_is_made_here_checked_and_said_to_be_made_up(trefoil: Run, tmp_path: Path) -> None:
    told = trefoil("mock", "alpha/chest", "--out", str(tmp_path / "m.npz"))
    assert f"{sum(RECIPE.images_per_class)} made-up images" in told
    assert "Nothing of the hospital's images" in told
    assert len(load_dataset(tmp_path / "m.npz", size=RECIPE.side)) == sum(RECIPE.images_per_class)
    shown = json.loads(trefoil("mock", "alpha/chest", "--out", str(tmp_path / "n.npz"), "--json"))
    assert shown["made_up"] is True


def test_a_mock_with_another_hash_is_refused_and_not_written(
    trefoil: Run, services: _Services, tmp_path: Path
) -> None:
    services.entries = [entry(mock_hash="0" * 64)]
    with pytest.raises(FailedPrecondition, match="not the one that was published"):
        trefoil("mock", "alpha/chest", "--out", str(tmp_path / "m.npz"))
    assert list(tmp_path.iterdir()) == []


def test_a_data_set_without_a_mock_says_so(trefoil: Run, services: _Services) -> None:
    services.entries = [coordinator_pb2.Dataset(dataset_id="alpha/chest", name="chest", images=5)]
    with pytest.raises(NotFound, match="has no mock"):
        trefoil("mock", "alpha/chest")
    told = trefoil("show", "alpha/chest")
    assert "not told" in told


@pytest.mark.parametrize(
    ("images", "disclosure", "words"),
    [(44, EXACT, "44"), (40, ROUNDED, "about 40"), (0, WITHHELD, "withheld"), (44, 0, "44")],
)
def test_numbers_say_how_exact_they_are(images: int, disclosure: int, words: str) -> None:
    assert images_in_words(images, disclosure) == words


def test_counts_that_nobody_told_are_withheld() -> None:
    assert counts_in_words(WITHHELD, {}) == counts_in_words(0, {"NORMAL": 4}) == "withheld"
    assert counts_in_words(EXACT, {"PNEUMONIA": 6, "NORMAL": 4}) == "4 NORMAL, 6 PNEUMONIA"


def test_a_schema_of_a_newer_release_is_told_as_such() -> None:
    assert "update" in schema_in_words(b'{"version":2}')
    assert schema_in_words(b"") == "not told"
