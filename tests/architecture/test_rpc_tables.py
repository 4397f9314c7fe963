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


def test_people_and_workers_always_need_a_token_except_to_ask_for_health() -> None:
    for method, rule in ACCESS_POLICY.items():
        if not method.startswith("/grpc.health."):
            for kind in (Kind.CLIENT, Kind.HOSPITAL):
                assert (kind, None) not in rule.allowed, method


def test_the_policy_is_the_one_that_was_agreed() -> None:
    """Written out a second time, by who rather than by method: a slip in one of the two shows."""

    def callers(kind: Kind, role: Role | None) -> set[str]:
        return {
            method.rsplit(".", 1)[1] for method, rule in ACCESS_POLICY.items() if (kind, role) in rule.allowed
        } - {"Health/Check", "Health/List", "Health/Watch"}

    coordinator = {"RegisterModel", "OpenRound", "CloseRound", "AbandonRound", "OpenPrediction"}
    coordinator |= {"DescribePool"}
    studies = {"CreateStudy", "StartStudy", "GetStudy", "ListStudies", "CancelStudy", "WatchStudy"}
    watching = {"GetStudy", "ListStudies", "WatchStudy"}
    catalogue = {"DescribeFederation", "SearchDatasets", "ListModels"}
    hospital = {"DescribeNode", "PublishDataset", "ListDatasets", "WithdrawDataset", "ListProposals"}

    def of(service: str, names: set[str]) -> set[str]:
        return {f"{service}Service/{name}" for name in names}

    shares = of("Party", {"PutShares", "GetShares"})
    predicting = of("Party", {"Predict"}) | of("Coordinator", {"OpenPrediction"})
    assert callers(Kind.COORDINATOR, None) == of("Party", coordinator)
    assert callers(Kind.PARTY, None) == of("Peer", {"Exchange", "FetchModel"})
    assert callers(Kind.HOSPITAL, Role.WORKER) == of("Coordinator", {"Attach"}) | shares
    pool = of("Party", {"DescribePool"})
    assert (
        callers(Kind.CLIENT, Role.SCIENTIST)
        == of("Coordinator", studies | catalogue | {"ImportModel"}) | shares | predicting | pool
    )
    assert callers(Kind.CLIENT, Role.CLINICIAN) == of("Coordinator", catalogue) | predicting
    operator = of("Coordinator", catalogue | watching) | pool | {"ServerReflection/ServerReflectionInfo"}
    assert callers(Kind.CLIENT, Role.OPERATOR) == operator
    assert callers(Kind.CLIENT, Role.OWNER) == of("Hospital", hospital | {"DecideProposal"})
    kinds_and_roles = {(kind, role) for kind in Kind for role in (None, *Role)}
    listed = {
        (Kind.COORDINATOR, None),
        (Kind.PARTY, None),
        (Kind.HOSPITAL, Role.WORKER),
        *((Kind.CLIENT, role) for role in Role if role is not Role.WORKER),
    }
    for kind, role in kinds_and_roles - listed:
        assert callers(kind, role) == set(), (kind, role)


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
