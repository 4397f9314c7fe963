"""What leaves the hospital about a data set: nothing that depends on its pixels but the hash of its files."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from libs.core.errors import TrefoilError
from libs.data.disclosure import CountDisclosure
from libs.data.export import export_part
from libs.data.mock import MockRecipe
from libs.data.phantom import make_phantoms_per_class
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as wire
from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2 as pb
from services.hospital_node import messages
from services.hospital_node.adapters.dataset_store import DatasetStore
from services.hospital_node.dataset_rpc import DatasetCalls
from services.hospital_node.datasets import Publisher
from services.hospital_node.dicomweb.archives import Archives
from services.hospital_node.domain import Dataset, Phase, TaskKey, TaskKind
from services.hospital_node.ports import Inspection
from services.hospital_node.worker.datasets import Datasets
from tests.fakes.hospital_ports import FixedClock, RememberingAnnouncer, ScriptedWorker
from tests.unit.data.dicom_files import CANARY, planted, write

NORMAL, PNEUMONIA = 13, 31
"""Both occur in no other number of a message."""


@pytest.fixture(scope="module")
def hospital(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Three data sets of one form: other pixels, and another number in the same range of ten."""
    root = tmp_path_factory.mktemp("data")
    for name, counts, seed in (
        ("first", (NORMAL, PNEUMONIA), 1),
        ("pixels", (NORMAL, PNEUMONIA), 2),
        ("numbers", (NORMAL + 4, PNEUMONIA + 4), 3),
    ):
        export_part(make_phantoms_per_class(counts, size=28, seed=seed), root / name)
    return root


class _Recorder(RememberingAnnouncer):
    """Keeps the messages themselves."""

    def __init__(self) -> None:
        super().__init__()
        self.sent: list[wire.Dataset] = []

    def dataset_published(self, dataset: Dataset) -> None:
        self.sent.append(messages.dataset_event(dataset).dataset_published)


def inspected(path: Path, root: Path) -> Inspection:
    return Datasets().inspect(path, data_roots=[root])


async def published(
    datasets: DatasetStore, root: Path, folder: str, *, policy: pb.CountDisclosure.ValueType, seed: int
) -> wire.Dataset:
    """What the coordinator hears of a folder that is published as "chest"."""
    worker, recorder = ScriptedWorker(inspection=inspected(root / folder, root)), _Recorder()
    publisher = Publisher(
        datasets=datasets,
        worker=worker,
        data_roots=[root],
        clock=FixedClock(),
        draw_seed=lambda: seed,
        archives=Archives({}, cache=root / "nowhere"),
    )

    async def nothing_runs() -> None:
        """No task is there to be stopped."""

    calls = DatasetCalls(
        datasets=datasets,
        publisher=publisher,
        announcer=recorder,
        consent_changed=nothing_runs,
        clock=FixedClock(),
    )
    request = pb.PublishDatasetRequest(name=folder, path=str(root / folder), disclosure=policy)
    await calls.publish(request)
    [sent] = recorder.sent
    sent.name = "chest"
    return sent


@pytest.mark.parametrize("policy", ["EXACT", "ROUNDED", "WITHHELD"])
async def test_other_pixels_change_the_hash_of_the_files_and_nothing_else(
    datasets: DatasetStore, hospital: Path, policy: str
) -> None:
    value = pb.CountDisclosure.Value(f"COUNT_DISCLOSURE_{policy}")
    others = ["pixels"] if policy == "EXACT" else ["pixels", "numbers"]
    first = await published(datasets, hospital, "first", policy=value, seed=1)
    assert first.content_hash
    for folder in others:
        other = await published(datasets, hospital, folder, policy=value, seed=1)
        assert other.content_hash != first.content_hash
        other.content_hash = first.content_hash
        assert other == first


async def test_another_seed_changes_the_mock_and_nothing_else(datasets: DatasetStore, hospital: Path) -> None:
    first = await published(datasets, hospital, "first", policy=pb.COUNT_DISCLOSURE_ROUNDED, seed=1)
    other = await published(datasets, hospital, "pixels", policy=pb.COUNT_DISCLOSURE_ROUNDED, seed=2)
    recipes = [MockRecipe.from_json(sent.mock_recipe) for sent in (first, other)]
    assert [recipe.seed for recipe in recipes] == [1, 2]
    assert recipes[0].model_copy(update={"seed": 2}) == recipes[1]
    assert first.mock_hash != other.mock_hash
    for field in ("content_hash", "mock_recipe", "mock_hash"):
        other.ClearField(field)
        first.ClearField(field)
    assert other == first


def _numbers(message: wire.Dataset) -> Mapping[str, object]:
    return {
        field.name: value
        for field, value in message.ListFields()
        if field.name in {"images", "disclosed_counts"}
    }


async def test_withheld_counts_are_in_no_message_and_no_log(datasets: DatasetStore, hospital: Path) -> None:
    with capture_logs() as logs:
        sent = await published(datasets, hospital, "first", policy=pb.COUNT_DISCLOSURE_WITHHELD, seed=1)
    assert _numbers(sent) == {}
    assert sent.disclosure == wire.COUNT_DISCLOSURE_WITHHELD
    # A mock of equal classes, whatever the data set's are.
    assert len(set(MockRecipe.from_json(sent.mock_recipe).images_per_class)) == 1
    told = sent.schema.decode() + sent.mock_recipe.decode() + repr(logs)
    for number in (NORMAL, PNEUMONIA, NORMAL + PNEUMONIA):
        assert f"{number}," not in told
        assert f": {number}" not in told
        assert f":{number}" not in told


async def test_no_path_and_no_number_of_patients_leaves(datasets: DatasetStore, hospital: Path) -> None:
    sent = await published(datasets, hospital, "first", policy=pb.COUNT_DISCLOSURE_EXACT, seed=1)
    assert _numbers(sent) == {
        "images": NORMAL + PNEUMONIA,
        "disclosed_counts": {"NORMAL": NORMAL, "PNEUMONIA": PNEUMONIA},
    }
    assert str(hospital).encode() not in sent.SerializeToString()
    assert {field.name for field, _ in sent.ListFields()} <= {
        *("name", "modality", "images", "version", "content_hash", "schema", "disclosed_counts"),
        *("disclosure", "mock_recipe", "mock_hash", "published_at"),
    }


async def test_errors_about_files_hold_no_count(datasets: DatasetStore, hospital: Path) -> None:
    for folder in (hospital / "first" / "NORMAL", hospital / "nowhere"):
        with pytest.raises(TrefoilError) as refused:
            inspected(folder, hospital)
        assert str(NORMAL) not in str(refused.value)


def test_progress_is_told_in_steps_that_do_not_count_batches() -> None:
    key = TaskKey(study_id="s", kind=TaskKind.TRAIN, round=1)
    for batches in (37, 41, 400):
        told = {
            messages.progress_event(key, Phase.TRAINING, done / batches).progress.fraction
            for done in range(batches + 1)
        }
        assert told == {step / messages.PROGRESS_STEPS for step in range(messages.PROGRESS_STEPS + 1)}


def test_a_data_set_of_the_first_release_can_still_be_told() -> None:
    old = Dataset(
        name="chest",
        description="",
        tags=(),
        path="/data/chest",
        images=44,
        patients=20,
        images_per_class={"NORMAL": 13, "PNEUMONIA": 31},
        content_hash="c" * 64,
        published_at=FixedClock().now(),
        disclosure=CountDisclosure.WITHHELD,
    )
    sent = messages.dataset_event(old).dataset_published
    assert (_numbers(sent), sent.schema, sent.mock_recipe, sent.mock_hash) == ({}, b"", b"", "")
    told = {field.name for field, _ in sent.ListFields()}
    assert told == {"name", "modality", "version", "content_hash", "disclosure", "published_at"}


async def test_planted_identifiers_are_in_no_message_answer_log_or_database(
    datasets: DatasetStore, tmp_path: Path
) -> None:
    for i, name in enumerate(("NORMAL", "PNEUMONIA")):
        image = planted()
        image.PatientID = f"{CANARY}-{i}"
        write(image, tmp_path / "chest" / name / f"{CANARY}-{i}.dcm")
    with capture_logs() as logs:
        sent = await published(datasets, tmp_path, "chest", policy=pb.COUNT_DISCLOSURE_EXACT, seed=1)
    stored = await datasets.run(lambda shelf: shelf.newest("chest"))
    report = inspected(tmp_path / "chest", tmp_path).identification
    assert '"PatientName"' in report
    assert stored is not None
    for told in (sent.SerializeToString(), repr(logs).encode(), repr(stored).encode(), report.encode()):
        for value in (CANARY, "1.2.7313", "19010203"):
            assert value.encode() not in told
    assert b"PatientName" not in sent.SerializeToString() + repr(stored).encode()
