"""The tables that every RPC and every error must be in, and the order of the interceptors."""

from __future__ import annotations

import importlib
import pkgutil
from collections.abc import Iterator
from pathlib import Path

import pytest
from google.protobuf.descriptor import FileDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

import libs
import services
from libs.core import errors
from libs.core.errors import Bug, TrefoilError
from libs.rpc import _generated
from libs.rpc.access_policy import ACCESS_POLICY
from libs.rpc.error_catalog import CATALOGUE
from libs.rpc.identity import Kind
from libs.rpc.interceptors import interceptor_chain
from libs.rpc.interceptors.authorisation import AuthorisationInterceptor
from libs.rpc.interceptors.errors import ErrorInterceptor
from libs.rpc.interceptors.identity import IdentityInterceptor
from libs.rpc.interceptors.logging import LoggingInterceptor
from libs.rpc.tokens import Role, TokenVerifier


def protos() -> Iterator[FileDescriptor]:
    for module in pkgutil.walk_packages(_generated.__path__, _generated.__name__ + "."):
        if module.name.endswith("_pb2"):
            yield importlib.import_module(module.name).DESCRIPTOR


def methods(file: FileDescriptor) -> set[str]:
    return {
        f"/{service.full_name}/{method.name}"
        for service in file.services_by_name.values()
        for method in service.methods
    }


def test_every_rpc_is_in_the_access_policy_and_no_unknown_one() -> None:
    ours = set().union(*(methods(file) for file in protos()))
    assert len(ours) > 20
    assert set(ACCESS_POLICY) == ours | methods(health_pb2.DESCRIPTOR) | methods(reflection_pb2.DESCRIPTOR)


@pytest.mark.parametrize("method", ACCESS_POLICY)
def test_every_rule_admits_somebody_and_asks_each_kind_either_for_roles_or_for_none(method: str) -> None:
    allowed = ACCESS_POLICY[method].allowed
    assert allowed
    without_token = {kind for kind, role in allowed if role is None}
    assert not without_token & {kind for kind, role in allowed if role is not None}


def test_people_and_workers_always_need_a_token_except_to_get_one_and_to_ask_for_health() -> None:
    to_get_one = {"ClaimNode", "AcceptInvitation", "LogIn", "RefreshSession"}
    without = {f"/trefoil.hospital.v1.AccountService/{name}" for name in to_get_one}
    for method, rule in ACCESS_POLICY.items():
        if not method.startswith("/grpc.health.") and method not in without:
            for kind in (Kind.CLIENT, Kind.HOSPITAL):
                assert (kind, None) not in rule.allowed, method


def test_the_policy_is_the_one_that_was_agreed() -> None:
    """Written out a second time, by who rather than by method: a slip in one of the two shows."""

    def callers(kind: Kind, role: Role | None) -> set[str]:
        return {
            method.rsplit(".", 1)[1] for method, rule in ACCESS_POLICY.items() if (kind, role) in rule.allowed
        } - {"Health/Check", "Health/List", "Health/Watch"}

    def of(service: str, *names: str) -> set[str]:
        return {f"{service}Service/{name}" for name in " ".join(names).split()}

    coordinator = of("Party", "RegisterModel OpenRound CloseRound AbandonRound OpenPrediction DescribePool")
    shares, trail = of("Party", "PutShares DescribeUpload GetShares"), of("Audit", "ExportTrail")
    watching = of("Coordinator", "GetStudy ListStudies WatchStudy")
    studies = watching | of("Coordinator", "CreateStudy StartStudy CancelStudy ImportModel")
    catalogue = of("Coordinator", "DescribeFederation SearchDatasets ListModels ListAccessRequests")
    predicting = of("Party", "Predict") | of("Coordinator", "OpenPrediction RequestAccess")
    pool = of("Party", "DescribePool")
    associations = of("Coordinator", "ListAssociations DecideAssociation")
    no_token = of("Account", "ClaimNode AcceptInvitation LogIn RefreshSession")
    own_account = of("Account", "WhoAmI LogOut ListSessions EndSession ChangePassword")
    own_account |= of("Account", "BeginSecondFactor ConfirmSecondFactor RemoveSecondFactor")
    every_staff = own_account | of("Hospital", "DescribeNode")
    data = of("Hospital", "ListDatasets ListDatasetVersions")
    publishing = of("Hospital", "PublishDataset InspectDataset WithdrawDataset")
    node = of("Hospital", "JoinFederation LeaveFederation")
    reading = of("Access", "ListRequests GetRequest ListRules")
    deciding = of("Access", "DecideRequest RevokeApproval AddRule RevokeRule")
    ledger, budget = of("Access", "ReadLedger"), of("Access", "SetBudget")
    asking = of("Access", "CreateRequest ReleaseStatistics")
    users = of("Account", "ListUsers ListRoles ListGroups")
    managing = of("Account", "InviteUser ChangeUser ResetUser SaveRole RemoveRole SaveGroup RemoveGroup")
    owner = every_staff | data | publishing | node | reading | deciding | ledger | budget | asking
    owner |= users | managing | trail | of("Account", "TransferOwnership")

    agreed: dict[tuple[Kind, Role | None], set[str]] = {
        (Kind.COORDINATOR, None): coordinator,
        (Kind.PARTY, None): of("Peer", "Exchange FetchModel UseModel"),
        (Kind.HOSPITAL, Role.WORKER): of("Coordinator", "Attach")
        | shares
        | of("Party", "SetModelUse DescribeModelUse"),
        (Kind.CLIENT, None): no_token,
        (Kind.CLIENT, Role.SCIENTIST): studies
        | catalogue
        | shares
        | predicting
        | pool
        | every_staff
        | data
        | asking,
        (Kind.CLIENT, Role.CLINICIAN): catalogue | predicting | every_staff,
        (Kind.CLIENT, Role.OPERATOR): catalogue
        | watching
        | pool
        | associations
        | trail
        | {"ServerReflection/ServerReflectionInfo"},
        (Kind.CLIENT, Role.OWNER): owner,
        (Kind.CLIENT, Role.ADMINISTRATOR): every_staff | data | node | users | managing,
        (Kind.CLIENT, Role.COMPLIANCE_OFFICER): every_staff
        | data
        | reading
        | deciding
        | ledger
        | budget
        | users
        | trail,
        (Kind.CLIENT, Role.AUDITOR): every_staff | data | reading | ledger | users | trail,
        # what each account may do of it, its permissions say
        (Kind.CLIENT, Role.STAFF): owner,
    }
    for kind in Kind:
        for role in (None, *Role):
            assert callers(kind, role) == agreed.get((kind, role), set()), (kind, role)


def subclasses(cls: type[TrefoilError]) -> set[type[TrefoilError]]:
    return {cls}.union(*(subclasses(child) for child in cls.__subclasses__()))


def test_every_error_of_core_is_in_the_catalogue() -> None:
    defined = {cls for cls in subclasses(TrefoilError) if cls.__module__ == errors.__name__}
    assert len(defined) >= 15
    assert set(CATALOGUE) == defined


def test_every_error_has_a_code_of_its_own() -> None:
    codes = [cls.code for cls in CATALOGUE if cls is not Bug]
    assert len(codes) == len(set(codes))


def test_errors_are_defined_in_core_or_keep_the_code_of_their_base() -> None:
    """The other end rebuilds an error by its code.

    A code that is not in the catalogue would turn into a Bug.
    """
    for package in (libs, services):
        for module in pkgutil.walk_packages(package.__path__, package.__name__ + "."):
            path = Path(module.module_finder.path, module.name.rsplit(".", 1)[-1] + ".py")  # type: ignore[union-attr]
            if (
                path.exists()
                and "Error" in (text := path.read_text())
                and "class " in text
                and not module.ispkg
            ):
                assert 'code = "' not in text or module.name == errors.__name__, (
                    f"{module.name} defines a code"
                )


def test_the_interceptors_stand_in_the_agreed_order() -> None:
    assert [type(interceptor) for interceptor in interceptor_chain(TokenVerifier([]))] == [
        IdentityInterceptor,
        AuthorisationInterceptor,
        ErrorInterceptor,
        LoggingInterceptor,
    ]
