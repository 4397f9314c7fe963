"""Counts with noise: paid for, by whom they were granted to, and drawn once for each call."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from libs.core.errors import AlreadyExists, FailedPrecondition, InvalidInput, PermissionDenied
from libs.dp.events import DiscreteLaplace, from_json
from libs.rpc._generated.trefoil.hospital.v1 import access_pb2 as pb
from libs.rpc._generated.trefoil.types.v1.types_pb2 import PrivacyCost
from libs.rpc.caller import Caller, calling_as
from libs.rpc.identity import Identity, Kind
from services.hospital_node.access.domain import LedgerKind
from services.hospital_node.access.rpc import AccessService
from tests.fakes.access import AccessRig, cost
from tests.fakes.hospital_ports import dataset, shelve, unshelve

ADA, EVE = (Identity(Kind.CLIENT, name) for name in ("ada", "eve"))


@pytest.fixture
def rig(light_rig: AccessRig) -> AccessRig:
    """Both databases are in the other files."""
    return light_rig


@pytest.fixture(autouse=True)
def as_ada() -> Iterator[None]:
    with calling_as(Caller(ADA, None, "call")):
        yield


@pytest.fixture
async def service(rig: AccessRig) -> AccessService:
    async def nothing_runs() -> None:
        return None

    await rig.set_budget(cost("1"))
    return AccessService(access=rig.access, consent_changed=nothing_runs)


async def approved(service: AccessService, *, uses: int = 3, epsilon: str = "2") -> str:
    """Ada asks, and says yes herself: who may do that is in the access policy. The approval's id."""
    asked = pb.CreateRequestRequest(
        request_id="request-1",
        purpose=pb.PURPOSE_STATISTICS,
        dataset_name="chest",
        asked=PrivacyCost(epsilon=epsilon),
        uses=uses,
    )
    await service.CreateRequest(asked, None)
    decision = pb.DecideRequestRequest(call_id="decision-1", request_id="request-1", approve=True)
    return (await service.DecideRequest(decision, None)).request.approval.approval_id


def call(approval_id: str, call_id: str = "release-1", epsilon: str = "0.5", **changed: Any) -> Any:
    values = {"call_id": call_id, "dataset_name": "chest", "approval_id": approval_id, "epsilon": epsilon}
    return pb.ReleaseStatisticsRequest(**{**values, **changed})


async def test_counts_carry_noise_and_are_paid_for(rig: AccessRig, service: AccessService) -> None:
    approval_id = await approved(service)
    answer = await service.ReleaseStatistics(call(approval_id), None)
    assert set(answer.noisy_counts) == {"NORMAL", "PNEUMONIA"}
    assert answer.spent.epsilon == "0.5"
    assert 2.5 < answer.noise_deviation < 3  # sqrt(2) / 0.5, a little less for whole numbers
    [entry] = await rig.entries()
    assert (entry.line.kind, entry.line.cost) == (LedgerKind.STATISTICS, cost("0.5"))
    assert from_json(entry.line.event) == DiscreteLaplace(cost("0.5").epsilon)  # type: ignore[arg-type]
    assert (await rig.approval_of("request-1")).used == 1
    assert rig.audited()[-1] == "statistics.released"


async def test_noise_is_drawn_and_does_not_repeat(service: AccessService) -> None:
    approval_id = await approved(service, uses=40)
    found = {
        service_answer.noisy_counts["NORMAL"]
        for service_answer in [
            await service.ReleaseStatistics(call(approval_id, f"release-{i}", "0.025"), None)
            for i in range(40)
        ]
    }
    assert len(found) > 10


async def test_a_retry_gives_the_same_counts_for_nothing_more(rig: AccessRig, service: AccessService) -> None:
    approval_id = await approved(service)
    answers = [await service.ReleaseStatistics(call(approval_id), None) for _ in range(5)]
    assert all(answer == answers[0] for answer in answers)
    assert len(await rig.entries()) == 1
    with pytest.raises(FailedPrecondition, match="request id"):
        await service.ReleaseStatistics(call(approval_id, epsilon="0.1"), None)
    with pytest.raises(InvalidInput, match="id"):
        await service.ReleaseStatistics(call(approval_id, call_id=""), None)


@pytest.mark.parametrize(
    "refused",
    [
        {"epsilon": "1.5"},
        {"epsilon": "0"},
        {"epsilon": "inf"},
        {"dataset_name": "hands"},
        {"approval_id": "approval-9"},
    ],
    ids=["beyond the budget", "for nothing", "without noise", "another data set", "no approval"],
)
async def test_what_was_not_granted_is_refused_and_costs_nothing(
    rig: AccessRig, service: AccessService, refused: dict[str, str]
) -> None:
    approval_id = await approved(service)
    await shelve(rig.datasets, dataset("hands"))
    budget = pb.SetBudgetRequest(call_id="budget-1", dataset_name="hands", budget=PrivacyCost(epsilon="9"))
    await service.SetBudget(budget, None)
    with pytest.raises((FailedPrecondition, InvalidInput, PermissionDenied)):
        await service.ReleaseStatistics(call(**{"approval_id": approval_id, **refused}), None)
    assert await rig.entries() == []
    assert (await rig.approval_of("request-1")).used == 0


async def test_an_approval_has_so_many_uses_and_so_much_epsilon(
    rig: AccessRig, service: AccessService
) -> None:
    approval_id = await approved(service, uses=2, epsilon="0.6")
    await service.ReleaseStatistics(call(approval_id), None)
    with pytest.raises(FailedPrecondition, match="does not grant as much"):
        await service.ReleaseStatistics(call(approval_id, "release-2", "0.2"), None)
    await service.ReleaseStatistics(call(approval_id, "release-2", "0.1"), None)
    with pytest.raises(FailedPrecondition, match="no uses left"):
        await service.ReleaseStatistics(call(approval_id, "release-3", "0.000001"), None)


async def test_somebody_elses_approval_is_of_no_use(rig: AccessRig, service: AccessService) -> None:
    approval_id = await approved(service)
    with calling_as(Caller(EVE, None, "call")), pytest.raises(PermissionDenied):
        await service.ReleaseStatistics(call(approval_id), None)
    await rig.revoke(approval_id)
    with pytest.raises(FailedPrecondition, match="revoked"):
        await service.ReleaseStatistics(call(approval_id), None)


async def test_other_content_needs_another_approval(rig: AccessRig, service: AccessService) -> None:
    approval_id = await approved(service)
    await unshelve(rig.datasets, "chest")
    with pytest.raises(FailedPrecondition, match="withdrawn"):
        await service.ReleaseStatistics(call(approval_id), None)


@pytest.mark.parametrize(
    "changed",
    [
        {"purpose": pb.PURPOSE_TRAINING},
        {"purpose": pb.PURPOSE_UNSPECIFIED},
        {"asked": PrivacyCost(epsilon="inf")},
        {"dataset_name": "hands"},
        {"uses": 10**7},
        {"request_id": ""},
    ],
    ids=str,
)
async def test_staff_ask_for_noisy_statistics_of_their_data_sets_only(
    service: AccessService, changed: dict[str, Any]
) -> None:
    values: dict[str, Any] = {
        "request_id": "request-1",
        "purpose": pb.PURPOSE_STATISTICS,
        "dataset_name": "chest",
        "asked": PrivacyCost(epsilon="1"),
    }
    with pytest.raises(InvalidInput):
        await service.CreateRequest(pb.CreateRequestRequest(**{**values, **changed}), None)


async def test_a_request_id_belongs_to_whoever_had_it_first(service: AccessService) -> None:
    await approved(service)
    asked = pb.CreateRequestRequest(
        request_id="request-1", purpose=pb.PURPOSE_STATISTICS, dataset_name="chest"
    )
    with calling_as(Caller(EVE, None, "call")), pytest.raises(AlreadyExists):
        await service.CreateRequest(asked, None)
