"""Holes of PyGrid and PriMIA that would have to show in a message: by the descriptors of all services."""

from __future__ import annotations

import importlib
import pkgutil
import re
from collections.abc import Iterator

from google.protobuf.descriptor import Descriptor, FieldDescriptor, MethodDescriptor

from libs.rpc import _generated

LOOKS_LIKE_A_CALLER = re.compile(
    r"user|caller|sender|subject|^actor|owner|account|author|client|worker|party|dealer|asker|reader|consumer"
    r"|requester|identit|_by$|name$"
)
WHO_ELSE = {
    "trefoil.coordinator.v1.DecideAssociationRequest.hospital_identity": "the hospital decided about",
    "trefoil.types.v1.ModelUse.asker_identities": "others, who may ask",
    "trefoil.hospital.v1.Rule.requester_identities": "others, whom the rule is for",
    "trefoil.hospital.v1.ReadLedgerRequest.consumer": "a filter",
    "trefoil.hospital.v1.ListSessionsRequest.user": "another, with the permission to manage users",
    "trefoil.hospital.v1.InviteUserRequest.name": "the new account",
    "trefoil.hospital.v1.InviteUserRequest.full_name": "the new account",
    "trefoil.hospital.v1.ChangeUserRequest.name": "the account that is changed",
    "trefoil.hospital.v1.ResetUserRequest.name": "the account that is reset",
    "trefoil.party.v1.RegisterModelRequest.dealer_identity": "another: the coordinator says who will deal",
    "trefoil.party.v1.RegisterModelRequest.reader_identities": "others, who may fetch",
    "trefoil.party.v1.Participant.hospital_identity": "others, who may contribute",
    "trefoil.party.v1.OpenRoundRequest.reader_identities": "others, who may fetch",
    "trefoil.party.v1.OpenRoundRequest.metrics_reader_identities": "others, who may fetch",
    "trefoil.party.v1.OpenPredictionRequest.dealer": "which party deals",
    "trefoil.party.v1.OpenPredictionRequest.client_identity": "another: the coordinator says who will ask",
    "trefoil.types.v1.ContributionTerms.hospital_identities": "others, whose updates may be added",
    "trefoil.types.v1.ContributionTerms.reader_identities": "others, who may fetch",
    "trefoil.types.v1.ContributionTerms.metrics_reader_identities": "others, who may fetch",
    "trefoil.party.v1.ModelUseRule.asker_identity": "another, who may ask",
    "trefoil.party.v1.UseModelRequest.asker_identity": "another, on whose prediction the replica counts",
}
THINGS = {
    "trefoil.coordinator.v1.Dataset.name": "a data set",
    "trefoil.coordinator.v1.DatasetWithdrawn.name": "a data set",
    "trefoil.coordinator.v1.ImportModelRequest.name": "a model",
    "trefoil.hospital.v1.Role.name": "a role",
    "trefoil.hospital.v1.RemoveRoleRequest.name": "a role",
    "trefoil.hospital.v1.Group.name": "a group",
    "trefoil.hospital.v1.RemoveGroupRequest.name": "a group",
    "trefoil.hospital.v1.PublishDatasetRequest.name": "a data set",
    "trefoil.hospital.v1.ListDatasetVersionsRequest.name": "a data set",
    "trefoil.hospital.v1.WithdrawDatasetRequest.name": "a data set",
    "trefoil.hospital.v1.CreateRequestRequest.dataset_name": "a data set",
    "trefoil.hospital.v1.SetBudgetRequest.dataset_name": "a data set",
    "trefoil.hospital.v1.ReadLedgerRequest.dataset_name": "a data set",
    "trefoil.hospital.v1.ReleaseStatisticsRequest.dataset_name": "a data set",
    "trefoil.party.v1.ArrayHeader.name": "an array",
}
NOT_BELIEVED = {
    "trefoil.coordinator.v1.HospitalHello.name": "shown to people; everything is keyed by the certificate",
    "trefoil.coordinator.v1.Dataset.hospital_identity": "the coordinator writes the certificate's over it",
    "trefoil.coordinator.v1.Dataset.hospital_name": "the coordinator writes its own over it",
    "trefoil.hospital.v1.Rule.created_by": "the node writes the caller over it",
    "trefoil.hospital.v1.ClaimNodeRequest.name": "of the account to be made, with the one-time code",
    "trefoil.hospital.v1.ClaimNodeRequest.full_name": "of the account to be made, with the one-time code",
    "trefoil.hospital.v1.LogInRequest.name": "with the password, which proves it",
    "trefoil.party.v1.PeerHello.party": "must be the party of the certificate",
}
REASONS = WHO_ELSE | THINGS | NOT_BELIEVED

SECRET = re.compile(r"secret|password|hash|key|token|code|salt|seed|private|provisioning|credential")
GIVEN_OUT = {
    "trefoil.hospital.v1.Tokens.access_token": "for the session that just began, for minutes",
    "trefoil.hospital.v1.Tokens.refresh_token": "for the session that just began, taken once",
    "trefoil.hospital.v1.Invitation.code": "to be handed over in person, taken once",
    "trefoil.hospital.v1.BeginSecondFactorResponse.provisioning_uri": "to its own account, before it counts",
    "trefoil.hospital.v1.ListUsersResponse.next_page_token": "where the next page begins",
    "trefoil.hospital.v1.ListRolesResponse.PermissionsEntry.key": "the name of a permission",
}


def methods() -> Iterator[MethodDescriptor]:
    """Of all services."""
    for module in pkgutil.walk_packages(_generated.__path__, _generated.__name__ + "."):
        if module.name.endswith("_pb2"):
            for service in importlib.import_module(module.name).DESCRIPTOR.services_by_name.values():
                yield from service.methods


def fields_of(message: Descriptor, seen: set[str]) -> Iterator[FieldDescriptor]:
    """Every field that the message can hold at any depth, each once."""
    if message.full_name in seen:
        return
    seen.add(message.full_name)
    for field in message.fields:
        yield field
        if field.message_type is not None:
            yield from fields_of(field.message_type, seen)


def test_no_request_names_its_caller() -> None:
    """PyGrid believed a message field `current_user`. Who calls is in the certificate and the token only."""
    seen: set[str] = set()
    found = {
        field.full_name
        for method in methods()
        for field in fields_of(method.input_type, seen)
        if LOOKS_LIKE_A_CALLER.search(field.name)
    }
    assert len(seen) > 80
    assert found - set(REASONS) == set(), "does it name the caller? If not, say here what it names"
    assert set(REASONS) - found == set(), "no longer there"


def test_no_answer_about_accounts_holds_a_secret() -> None:
    """PyGrid's user records returned private signing keys and hashed passwords."""
    seen: set[str] = set()
    found = {
        field.full_name
        for method in methods()
        if method.containing_service.name == "AccountService"
        for field in fields_of(method.output_type, seen)
        if field.message_type is None and SECRET.search(field.name)
    }
    assert found == set(GIVEN_OUT)


NUMBERS = {
    FieldDescriptor.CPPTYPE_INT32,
    FieldDescriptor.CPPTYPE_INT64,
    FieldDescriptor.CPPTYPE_UINT32,
    FieldDescriptor.CPPTYPE_UINT64,
    FieldDescriptor.CPPTYPE_DOUBLE,
    FieldDescriptor.CPPTYPE_FLOAT,
}
MADE_FOR_SHARES = re.compile(r"share|chunk|seed|vector|update|gradient|weights|loss|accuracy")


def test_no_message_to_the_coordinator_has_a_place_for_an_update_or_a_loss() -> None:
    """PyGrid's server saw every raw update, PriMIA's every batch's loss and label counts.

    What really travels in a study is in `tests/e2e/test_privacy.py`.
    """
    seen: set[str] = set()
    for method in methods():
        if method.containing_service.name == "CoordinatorService":
            for field in fields_of(method.input_type, seen):
                assert not (field.is_repeated and field.cpp_type in NUMBERS), field.full_name
                assert not MADE_FOR_SHARES.search(field.name), field.full_name
    assert "trefoil.types.v1.ShareHeader" not in seen
