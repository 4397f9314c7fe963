"""The whole node as the process that a hospital runs, between its staff and a small federation."""

from __future__ import annotations

import asyncio
import json
import os
import socket
import sys
import time
from collections.abc import AsyncIterator
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from pydicom.uid import generate_uid

from libs.core.errors import InvalidInput, PermissionDenied
from libs.data.identification import IdentificationReport
from libs.fl.metrics import METRICS_LENGTH, decode_metrics
from libs.fl.training_plan import TrainingPlan
from libs.fl.update_encoding import encode_weights
from libs.fl.vectorise import state_vector
from libs.models.registry import build_model
from libs.rpc._generated.trefoil.audit.v1 import audit_pb2
from libs.rpc._generated.trefoil.audit.v1.audit_pb2_grpc import AuditServiceStub
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from libs.rpc._generated.trefoil.hospital.v1 import access_pb2, hospital_pb2
from libs.rpc._generated.trefoil.hospital.v1.access_pb2_grpc import AccessServiceStub
from libs.rpc._generated.trefoil.hospital.v1.hospital_pb2_grpc import HospitalServiceStub
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.channel import open_channel, translated
from libs.rpc.identity import Identity, Kind
from libs.rpc.signing import checkpoint_check, read_authorities
from libs.rpc.statements import sign_statement
from libs.rpc.tokens import Role
from libs.runtime.audit.verify import verify_trail
from libs.runtime.private_files import write_private
from tests.fakes.hospital_federation import FakeFederation, eventually, in_minutes, write_token
from tests.fakes.keys import tls_files
from tests.fakes.orthanc import PASSWORD, USER, Orthanc
from tests.unit.data.dicom_files import CANARY, planted, write

REPOSITORY = Path(__file__).resolve().parents[3]
ALPHA = Identity(Kind.HOSPITAL, "alpha")
STUDY = "study-1"
SCIENTIST = "spiffe://trefoil.local/client/owner"
HOSPITALS = ["spiffe://trefoil.local/hospital/alpha", "spiffe://trefoil.local/hospital/beta"]
SHORT = TrainingPlan(
    model="small_cnn", image_size=28, rounds=3, learning_rate=0.05, batch_size=8, validation_fraction=0.25
)
LONG = SHORT.model_copy(update={"local_epochs": 60})


class Node:
    """A running node and its owner's way in."""

    def __init__(self, process: asyncio.subprocess.Process, channel: Any, federation: FakeFederation):
        self.process, self.federation = process, federation
        self.stub, self.access = HospitalServiceStub(channel), AccessServiceStub(channel)
        self.health, self.audit = health_pb2_grpc.HealthStub(channel), AuditServiceStub(channel)

    async def publish(self, path: Path) -> hospital_pb2.Dataset:
        request = hospital_pb2.PublishDatasetRequest(name="chest", tags=["chest"], path=str(path))
        with translated():
            return (await self.stub.PublishDataset(request)).dataset

    async def propose(self, plan: TrainingPlan, *, hospitals: list[str] | None = None) -> None:
        """What the coordinator passes on; the scientist signed it, and did not sign other `hospitals`."""
        said = {
            "request_id": "create-1",
            "title": "Pneumonia",
            "plan_hash": plan.hash,
            "dataset_ids": ["alpha/chest", "beta/chest"],
        }
        dana = tls_files(self.federation.keys, Identity(Kind.CLIENT, "owner"))
        message = pb.PlanProposal(
            study_id=STUDY,
            title="Pneumonia",
            training_plan=plan.canonical_json(),
            plan_hash=plan.hash,
            dataset_name="chest",
            hospital_identities=hospitals or HOSPITALS,
            reader_identities=[SCIENTIST, *HOSPITALS],
            statement=sign_statement("study", said, tls=dana),
        )
        self.federation.coordinator.say(pb.CoordinatorOrder(proposal=message))

    async def approve(self, plan: TrainingPlan) -> None:
        """The coordinator proposes, the owner sets a budget and approves, the coordinator hears of it."""
        await self.propose(plan)
        # A study that cannot be approved would be answered at once; this one waits for the owner.
        await eventually(self._has_requests)
        without_privacy = types_pb2.PrivacyCost(epsilon="inf")
        with translated():
            await self.access.SetBudget(
                access_pb2.SetBudgetRequest(call_id="budget-1", dataset_name="chest", budget=without_privacy)
            )
            decision = access_pb2.DecideRequestRequest(
                call_id="decision-1",
                request_id=STUDY,
                plan_hash=plan.hash,
                approve=True,
                granted=without_privacy,
            )
            decided = await self.access.DecideRequest(decision)
        assert list(decided.request.approval.study_ids) == [STUDY]
        await self.federation.coordinator.heard("plan_decision")

    async def _has_requests(self) -> bool:
        listed = await self.access.ListRequests(access_pb2.ListRequestsRequest(pending_only=True))
        return bool(listed.requests)

    def order(self, plan: TrainingPlan, *, number: int = 1, attempt: int = 0) -> types_pb2.RoundRef:
        base_id = f"{STUDY}/round-{number - 1}"
        model = build_model(plan.model, channels=1, classes=2, size=plan.image_size, seed=plan.seed)
        self.federation.put(
            types_pb2.VectorRef(model_id=base_id),
            encode_weights(state_vector(model), scale_bits=plan.scale_bits),
        )
        reference = types_pb2.RoundRef(study_id=STUDY, round=number, attempt=attempt)
        weight = Fraction(1, 3)
        train = pb.TrainOrder(
            round=reference,
            plan_hash=plan.hash,
            base_model_id=base_id,
            weight=types_pb2.Fraction(numerator=weight.numerator, denominator=weight.denominator),
        )
        train.deadline.FromDatetime(in_minutes(5))
        self.federation.coordinator.say(pb.CoordinatorOrder(train=train))
        return reference

    async def trail(self, *, ca: Path) -> list[dict[str, Any]]:
        """The entries of the node's audit trail as its owner exports it, verified."""
        with translated():
            answers = self.audit.ExportTrail(audit_pb2.ExportTrailRequest())
            lines = [answer.line.decode() async for answer in answers]
        check = checkpoint_check(read_authorities(await asyncio.to_thread(ca.read_bytes)))
        report = verify_trail(lines, check_signature=check, trail=ALPHA.uri)
        assert (report.finding, report.not_yet_signed) == (None, 0)
        return [line for line in map(json.loads, lines) if line["kind"] == "entry"]

    def worker(self) -> psutil.Process:
        [child] = [
            child
            for child in psutil.Process(self.process.pid).children()
            if "services.hospital_node.worker" in child.cmdline()
        ]
        return child


@pytest.fixture
def more_settings(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """An archive's, for tests that have one."""
    if "archive" not in request.fixturenames:
        return ""
    write_private(tmp_path / "password", PASSWORD)
    return f"""
[dicomweb.pacs]
url = "{request.getfixturevalue("archive").url}"
plaintext_on_loopback = true
username = "{USER}"
password_file = "password"
"""


@pytest.fixture
async def node(
    federation: FakeFederation, keys: Path, data_root: Path, tmp_path: Path, more_settings: str
) -> AsyncIterator[Node]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    write_token(keys, tmp_path / "worker.token", issuer="federation", role=Role.WORKER)
    own = keys / "hospital-alpha"
    settings = tmp_path / "hospital.toml"
    settings.write_text(f"""
name = "alpha"
listen = "{address}"
worker_token = "worker.token"
database = "sqlite:///hospital.db"
data_roots = ["{data_root}"]
tls = {{ certificate = "{own}/tls.crt", key = "{own}/tls.key", ca = "{own}/ca.crt" }}
coordinator = {{ address = "{federation.address}" }}
[[token_secrets]]
issuer = "hospital-alpha"
secret = "{own}/jwt.secret"
audience = "hospital-alpha"
{more_settings}""")
    log = tmp_path / "node.log"
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.hospital_node", "--config", str(settings)),
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(REPOSITORY)},
        stderr=log.open("wb"),
    )
    token = write_token(keys, tmp_path / "owner.token", issuer="hospital-alpha", role=Role.OWNER)
    owner = tls_files(keys, Identity(Kind.CLIENT, "owner"))
    try:
        async with open_channel(address=address, server=ALPHA, tls=owner, token_file=token) as channel:
            await asyncio.wait_for(channel.channel_ready(), 60)
            await federation.coordinator.heard("hello")
            yield Node(process, channel, federation)
    finally:
        process.terminate()
        ended = await asyncio.wait_for(process.wait(), 20)
        sys.stderr.write(log.read_text())
        assert ended == 0


async def test_a_hospital_publishes_approves_trains_and_deals_its_contribution(
    node: Node, data_root: Path, tmp_path: Path, keys: Path
) -> None:
    published = await node.publish(data_root / "chest")
    assert (tmp_path / "hospital.db").stat().st_mode & 0o077 == 0
    assert published.images == sum(published.images_per_class.values())
    [announced] = await node.federation.coordinator.heard("dataset_published")
    assert (announced.name, announced.images) == ("chest", published.disclosed_images)
    assert announced.content_hash == published.content_hash
    assert announced.mock_hash
    await node.approve(SHORT)
    reference = node.order(SHORT)
    [sent] = await node.federation.coordinator.heard("contribution_sent")
    assert (sent.study_id, sent.round, sent.attempt) == (STUDY, 1, 0)
    contribution = node.federation.revealed(types_pb2.VectorRef(contribution=reference))
    metrics = decode_metrics(contribution[-METRICS_LENGTH:])
    assert metrics.train_samples + metrics.validation_samples == published.images
    assert np.any(contribution[:-METRICS_LENGTH])
    assert len({tuple(party.upload_ids) for party in node.federation.parties}) == 1
    for party in node.federation.parties:
        [terms] = party.terms
        assert (terms.quorum, terms.hospital_identities) == (2, HOSPITALS)
        assert terms.reader_identities == terms.metrics_reader_identities == [SCIENTIST, *HOSPITALS]
        assert terms.use == types_pb2.ModelUse()
        assert (terms.weight.numerator, terms.weight.denominator) == (1, 3)
    trail = await node.trail(ca=keys / "ca" / "ca.crt")
    told = [entry for entry in trail if entry["object"] == f"train in round 1 of study {STUDY}"]
    assert [entry["action"] for entry in told] == [
        "task.started",
        "contribution.prepared",
        "contribution.sent",
    ]
    assert told[0]["details"]["plan_hash"] == SHORT.hash
    assert {entry["details"]["upload_id"] for entry in told[1:]} == set(node.federation.parties[0].upload_ids)
    assert {"node.attached", "trail.exported"} <= {entry["action"] for entry in trail}


async def test_identifiers_of_an_archive_s_images_leave_the_node_nowhere(
    archive: Orthanc, node: Node, data_root: Path, tmp_path: Path, keys: Path
) -> None:
    """PS3.15's identifying elements are all filled, and looked for in every place that others can read."""
    uids = [generate_uid() for _ in range(2)]
    for uid in uids:
        image = planted()
        image.SOPInstanceUID, image.PatientID = uid, f"{CANARY}-{uid[-4:]}"
        image.StudyInstanceUID, image.SeriesInstanceUID = generate_uid(), generate_uid()
        archive.upload(write(image, tmp_path / "upload.dcm"))
    wanted = data_root / "wanted.csv"
    wanted.write_text(f"SOPInstanceUID,label\n{uids[0]},NORMAL\n{uids[1]},PNEUMONIA\n")
    request = hospital_pb2.PublishDatasetRequest(
        name="archived", path=str(wanted), dicomweb="pacs", request_id="request-0001"
    )
    try:
        with translated():
            answer, again = [await node.stub.PublishDataset(request) for _ in range(2)]
    finally:
        wanted.unlink()
    assert again == answer
    assert answer.dataset.path.startswith(str(tmp_path / "dicomweb" / "pacs"))
    assert (answer.dataset.images, answer.dataset.patients) == (2, 2)
    report = IdentificationReport.from_json(answer.identification)
    assert {"PatientName", "InstitutionName", "OperatorsName"} <= {found.name for found in report.attributes}
    [told] = await node.federation.coordinator.heard("dataset_published")
    inspected = await node.stub.InspectDataset(hospital_pb2.InspectDatasetRequest(path=answer.dataset.path))
    assert inspected.identification == answer.identification
    trail = await node.trail(ca=keys / "ca" / "ca.crt")
    places = {
        "coordinator": told.SerializeToString(),
        "trail": json.dumps(trail).encode(),
        "log": _bytes_of(tmp_path, "node.log"),
        "database": _bytes_of(tmp_path, "hospital.db*"),
        "answer": answer.SerializeToString() + inspected.SerializeToString(),
    }
    for place, content in places.items():
        assert content, place
        for value in (CANARY, "1.2.7313", "19010203", *uids):
            assert value.encode() not in content, (place, value)
    assert b"PatientName" not in places["coordinator"] + places["trail"] + places["log"]
    assert _is_private(tmp_path / "dicomweb")


def _bytes_of(folder: Path, pattern: str) -> bytes:
    return b"".join(file.read_bytes() for file in sorted(folder.glob(pattern)))


def _is_private(folder: Path) -> bool:
    return all(file.stat().st_mode & 0o077 == 0 for file in [folder, *folder.rglob("*")])


async def test_an_order_with_another_hash_is_refused_whatever_the_coordinator_says(
    node: Node, data_root: Path
) -> None:
    await node.publish(data_root / "chest")
    await node.approve(SHORT)
    node.order(SHORT.model_copy(update={"local_epochs": 2}))
    [failed] = await node.federation.coordinator.heard("task_failed")
    assert failed.code == "failed_precondition"
    assert not any(party.upload_ids for party in node.federation.parties)


async def test_a_study_with_a_hospital_that_its_scientist_did_not_choose_is_denied_and_never_shown(
    node: Node, data_root: Path
) -> None:
    await node.publish(data_root / "chest")
    await node.propose(SHORT, hospitals=[*HOSPITALS, "spiffe://trefoil.local/hospital/gamma"])
    [decision] = await node.federation.coordinator.heard("plan_decision")
    assert not decision.approved
    listed = await node.access.ListRequests(access_pb2.ListRequestsRequest())
    assert list(listed.requests) == []


async def test_the_owner_stops_training_by_taking_consent_back(node: Node, data_root: Path) -> None:
    await node.publish(data_root / "chest")
    await node.approve(LONG)
    node.order(LONG)
    await node.federation.coordinator.heard("progress", where=lambda e: e.phase == pb.PHASE_TRAINING)
    worker = node.worker()
    with translated():
        await node.access.RevokeApproval(
            access_pb2.RevokeApprovalRequest(call_id="revoke-1", approval_id=STUDY)
        )
    assert not worker.is_running()
    [failed] = await node.federation.coordinator.heard("task_failed")
    assert failed.code == "failed_precondition"
    described = await node.stub.DescribeNode(hospital_pb2.DescribeNodeRequest())
    assert described.activity == "idle"


async def test_the_node_answers_while_it_trains_and_a_killed_worker_fails_only_its_task(
    node: Node, data_root: Path
) -> None:
    coordinator = node.federation.coordinator
    await node.publish(data_root / "chest")
    await node.approve(LONG)
    node.order(LONG)
    await coordinator.heard("progress", where=lambda event: event.phase == pb.PHASE_TRAINING)
    for _ in range(5):
        before = time.monotonic()
        answer = await node.health.Check(health_pb2.HealthCheckRequest(), timeout=5)
        assert answer.status == health_pb2.HealthCheckResponse.SERVING
        assert time.monotonic() - before < 1
    described = await node.stub.DescribeNode(hospital_pb2.DescribeNodeRequest())
    assert described.attached_to_coordinator
    assert STUDY in described.activity
    node.worker().kill()
    [failed] = await coordinator.heard("task_failed")
    assert (failed.code, failed.round) == ("unavailable", 1)
    coordinator.events.clear()
    node.order(LONG, number=2)
    await coordinator.heard("progress", where=lambda event: event.phase == pb.PHASE_TRAINING)
    # The end of the study stops the training that runs for it.
    worker = node.worker()
    coordinator.say(pb.CoordinatorOrder(study_ended=pb.StudyEnded(study_id=STUDY)))
    await asyncio.to_thread(worker.wait, 20)
    assert not any(party.upload_ids for party in node.federation.parties)


async def test_a_contribution_that_was_finished_while_the_coordinator_was_away_is_reported_on_its_return(
    node: Node, data_root: Path
) -> None:
    coordinator = node.federation.coordinator
    await node.publish(data_root / "chest")
    await node.approve(SHORT)
    node.order(SHORT)
    await coordinator.heard("progress")
    await node.federation.stop_coordinator()

    async def dealt() -> bool:
        return all(party.upload_ids for party in node.federation.parties)

    await eventually(dealt)
    await node.federation.start_coordinator()
    await coordinator.heard("hello", count=2)
    await coordinator.heard("plan_decision", count=2)
    node.order(SHORT)  # a coordinator repeats what it has no answer to
    await coordinator.heard("contribution_sent")
    assert [len(party.upload_ids) for party in node.federation.parties] == [1, 1, 1]


async def test_bad_data_is_refused_in_words_and_leaves_nothing_in_the_catalogue(
    node: Node, tmp_path: Path, data_root: Path
) -> None:
    with pytest.raises(PermissionDenied, match="data_roots"):
        await node.publish(tmp_path)
    with pytest.raises(InvalidInput, match="nothing at this path"):
        await node.publish(data_root / "missing")
    listed = await node.stub.ListDatasets(hospital_pb2.ListDatasetsRequest())
    assert list(listed.datasets) == []


async def test_a_withdrawn_data_set_leaves_the_catalogue_and_stays_listed_as_a_version(
    node: Node, data_root: Path
) -> None:
    published = await node.publish(data_root / "chest")
    with translated():
        await node.stub.WithdrawDataset(hospital_pb2.WithdrawDatasetRequest(name="chest"))
        [withdrawn] = await node.federation.coordinator.heard("dataset_withdrawn")
        listed = await node.stub.ListDatasetVersions(hospital_pb2.ListDatasetVersionsRequest(name="chest"))
    assert withdrawn.name == "chest"
    [version] = listed.versions
    assert (version.version, version.content_hash) == (1, published.content_hash)
    assert version.HasField("withdrawn_at")
