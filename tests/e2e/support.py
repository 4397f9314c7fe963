"""A small study over real processes, and what the processes received in it."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from google.protobuf import descriptor_pool, message_factory
from google.protobuf.descriptor import FieldDescriptor
from google.protobuf.message import Message
from grpc_health.v1 import health_pb2  # noqa: F401 - registers the health service's messages

from libs.cli.demo import journey, staff
from libs.cli.demo.material import Material, hand_out
from libs.cli.local_cluster import LocalCluster
from libs.data.partition import partition_patients
from libs.data.phantom import make_phantoms
from libs.fl.training_plan import TrainingPlan
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2  # noqa: F401 - registers its messages
from libs.rpc._generated.trefoil.party.v1 import party_pb2  # noqa: F401 - registers its messages
from libs.rpc.recorder import REQUEST, read_records

SIZE = 16
HOSPITALS = ("north", "east", "south")


def small_plan(**changes: Any) -> TrainingPlan:
    """Two short rounds of the small network at 16 pixels."""
    values: dict[str, Any] = {
        "model": "small_cnn",
        "image_size": SIZE,
        "rounds": 2,
        "local_epochs": 1,
        "batch_size": 16,
        "learning_rate": 0.05,
        "quorum": 2,
        "round_deadline_s": 60.0,
        "dataset_tags": ("chest-x-ray", "pneumonia"),
        "model_access": {"ask": ("spiffe://trefoil.local/client/clinic",)},
    }
    return TrainingPlan.model_validate(values | changes)


def small_material(*, images: int = 120, test_images: int = 24) -> Material:
    """Phantoms for the hospitals, and others for the clinic."""
    parts = partition_patients(make_phantoms(images, size=SIZE, seed=5), hospitals=len(HOSPITALS), seed=5)
    return Material(
        source="made-up chest radiographs",
        parts=dict(zip(HOSPITALS, parts, strict=True)),
        test=make_phantoms(test_images, size=SIZE, seed=6),
    )


async def publish(cluster: LocalCluster, material: Material) -> None:
    """Every owner claims the node and publishes its part."""
    hand_out(material, {name: cluster.folder(f"hospital-{name}") / "data" for name in cluster.hospitals})
    await staff.claim_nodes(cluster)
    await staff.publish_everywhere(cluster)


async def begin_study(cluster: LocalCluster, scientist: Any, plan: TrainingPlan) -> coordinator_pb2.Study:
    """Find the data, ask for access, have every owner approve the plan, and propose it: rounds begin."""
    datasets = await journey.find_data(cluster, scientist)
    await journey.ask_for_access(scientist, plan=plan, datasets=datasets)
    await staff.approve_everywhere(cluster, plan_hash=plan.hash)
    await journey.require_approved(scientist, requests=len(datasets))
    return await journey.create_study(scientist, plan=plan, datasets=datasets)


# ------------------------------------------------------------ recordings


@dataclass(frozen=True)
class Received:
    """One message that a process received, parsed."""

    method: str
    message: Message
    size_bytes: int


def received_by(cluster: LocalCluster, service: str) -> list[Received]:
    """Everything that a service received over gRPC: requests to it, and answers to its own calls."""
    found = []
    for file in sorted(Path(cluster.received(service)).glob("*.bin")):
        for record in read_records(file):
            method = _method(record.method)
            kind = method.input_type if record.direction == REQUEST else method.output_type
            message = message_factory.GetMessageClass(kind)()
            message.ParseFromString(record.data)
            found.append(Received(record.method, message, len(record.data)))
    return found


def _method(path: str) -> Any:
    _, service, name = path.split("/")
    return descriptor_pool.Default().FindServiceByName(service).methods_by_name[name]


def walk(message: Message, *, prefix: str = "") -> Iterator[tuple[str, FieldDescriptor, Any]]:
    """(path, field, value) of every set field below, values of lists and maps one by one."""
    for field, value in message.ListFields():
        path = f"{prefix}.{field.name}" if prefix else field.name
        if field.message_type is not None and field.message_type.GetOptions().map_entry:
            for key, item in value.items():
                yield f"{path}[{key}]", field.message_type.fields_by_name["value"], item
            continue
        for item in value if field.is_repeated else [value]:
            if field.message_type is None:
                yield path, field, item
            else:
                yield from walk(item, prefix=path)


def check_no_unknown_fields(message: Message) -> None:
    """A field that the proto does not know could carry anything."""
    from google.protobuf.unknown_fields import UnknownFieldSet

    assert len(UnknownFieldSet(message)) == 0
    for field, value in message.ListFields():
        if field.message_type is not None and not field.message_type.GetOptions().map_entry:
            for item in value if field.is_repeated else [value]:
                check_no_unknown_fields(item)
