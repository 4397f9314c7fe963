"""What the coordinator can be told at all, by the wire's own definition."""

from __future__ import annotations

from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor

from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.party.v1 import party_pb2

# What the coordinator calls at the parties, hence whose answers it reads.
CALLED = ("RegisterModel", "OpenRound", "CloseRound", "AbandonRound", "OpenPrediction")
ARRAYS = {FieldDescriptor.TYPE_BYTES, FieldDescriptor.TYPE_FLOAT, FieldDescriptor.TYPE_DOUBLE}
NUMBERS = {
    FieldDescriptor.TYPE_UINT32,
    FieldDescriptor.TYPE_UINT64,
    FieldDescriptor.TYPE_SINT32,
    FieldDescriptor.TYPE_SINT64,
    FieldDescriptor.TYPE_INT32,
    FieldDescriptor.TYPE_INT64,
    FieldDescriptor.TYPE_FIXED32,
    FieldDescriptor.TYPE_FIXED64,
}


def received() -> list[Descriptor]:
    coordinator = coordinator_pb2.DESCRIPTOR.services_by_name["CoordinatorService"]
    party = party_pb2.DESCRIPTOR.services_by_name["PartyService"]
    return [method.input_type for method in coordinator.methods] + [
        party.methods_by_name[name].output_type for name in CALLED
    ]


def fields_of(message: Descriptor, seen: set[str]) -> Iterator[FieldDescriptor]:
    if message.full_name in seen:
        return
    seen.add(message.full_name)
    for field in message.fields:
        yield field
        if field.message_type is not None:
            yield from fields_of(field.message_type, seen)


def test_no_message_to_the_coordinator_can_hold_an_array() -> None:
    """Bytes are plans, schemas, recipes and statements (JSON, parsed on arrival) and what proves who signed
    them; the one real number is a progress bar; lists of numbers are the bounds of a calibration, powers of
    two that the protocol publishes, and the counts that an owner discloses.
    """
    seen: set[str] = set()
    fields = [field for message in received() for field in fields_of(message, seen)]
    assert {f.full_name.removeprefix("trefoil.coordinator.v1.") for f in fields if f.type in ARRAYS} == {
        "CreateStudyRequest.training_plan",
        "Dataset.mock_recipe",
        "Dataset.schema",
        "ImportModelRequest.plan",
        "RequestAccessRequest.training_plan",
        "trefoil.types.v1.SignedStatement.certificate_chain",
        "trefoil.types.v1.SignedStatement.payload",
        "trefoil.types.v1.SignedStatement.signature",
        "TrainingProgress.fraction",
    }
    assert not [f.full_name for f in fields if f.is_repeated and f.type in NUMBERS | ARRAYS]
    assert {
        f.full_name for f in fields if f.message_type is not None and f.message_type.GetOptions().map_entry
    } == {
        "trefoil.coordinator.v1.CalibrationReport.bound_bits",
        "trefoil.coordinator.v1.Dataset.disclosed_counts",
    }
