"""A hundred at once for the last of something: exactly one gets it, on both databases."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Iterator

import pytest

from libs.core.errors import FailedPrecondition
from services.hospital_node.access import statistics
from services.hospital_node.access.domain import AccessRequest, Origin, Purpose, StudyState
from services.hospital_node.access.ports import Unit
from services.hospital_node.access.requests import Decision, store
from services.hospital_node.access.statistics import Consumer
from services.hospital_node.adapters.transactions import Transactions
from tests.fakes.access import DANA, FREELY, AccessRig, People, cost
from tests.fakes.hospital_ports import NOW, PLAN

MANY = 100
ADA = Consumer("spiffe://trefoil.local/client/ada", "ada")


@pytest.fixture
def rigs(rig: AccessRig, migrated_url: str, people: People) -> Iterator[list[AccessRig]]:
    """The node, and three more at the same database: one alone does one thing at a time by itself."""
    opened = [Transactions(migrated_url) for _ in range(3)]
    yield [rig, *(AccessRig(one, people) for one in opened)]
    for one in opened:
        one.close()


async def test_of_a_hundred_studies_one_gets_the_last_use_of_an_approval(
    rig: AccessRig, rigs: list[AccessRig]
) -> None:
    await rig.access.access_asked(rig.people.asked(uses=1))
    await rig.decide("request-1", Decision(True, PLAN.hash, granted=FREELY))
    proposals = [rig.people.proposal(study_id=f"study-{i}") for i in range(MANY)]
    await asyncio.gather(
        *(rigs[i % 4].access.plan_proposed(proposal) for i, proposal in enumerate(proposals))
    )
    studies = await rig.store.run(lambda unit: unit.studies())
    assert [study.state for study in studies].count(StudyState.ADMITTED) == 1
    assert len(studies) == MANY
    approval = await rig.approval_of("request-1")
    assert (approval.used, len(await rig.entries())) == (1, 1)
    assert rig.audited().count("study.admitted") == 1


async def test_of_a_hundred_releases_one_gets_the_last_of_a_budget(
    rig: AccessRig, rigs: list[AccessRig]
) -> None:
    await rig.set_budget(cost("2.5"))
    request = AccessRequest(
        request_id="counts",
        origin=Origin.STAFF,
        purpose=Purpose.STATISTICS,
        dataset_name="chest",
        content_hash="c" * 64,
        requester=ADA.identity,
        requested_by=ADA.subject,
        reason="",
        asked=cost("1000"),
        uses_asked=MANY,
        received_at=NOW,
    )
    await rig.store.run(lambda unit: store(unit, request))
    await rig.decide("counts", Decision(approve=True))
    approval = await rig.approval_of("counts")

    def take(unit: Unit, epsilon: str) -> None:
        statistics.release(
            unit,
            dataset_name="chest",
            approval_id=approval.approval_id,
            epsilon=cost(epsilon).epsilon,  # type: ignore[arg-type]
            consumer=ADA,
        )

    await rig.store.run(lambda unit: take(unit, "1.5"))
    racing = (rigs[i % 4].store.run(lambda unit: take(unit, "1")) for i in range(MANY))
    ended = await asyncio.gather(*racing, return_exceptions=True)
    assert ended.count(None) == 1
    assert all(isinstance(end, FailedPrecondition) for end in ended if end is not None)
    assert sum(entry.line.cost.epsilon for entry in await rig.entries()) == cost("2.5").epsilon  # type: ignore[misc]
    assert (await rig.approval_of("counts")).used == 2
    assert rig.audited().count("statistics.released") == 2


async def test_of_a_hundred_arrivals_the_rule_approves_as_many_as_it_has_uses_for(
    rig: AccessRig, rigs: list[AccessRig]
) -> None:
    await rig.add_rule(uses=3)
    asked = [rig.people.asked(f"request-{i}") for i in range(20)]
    await asyncio.gather(*(rigs[i % 4].access.access_asked(one) for i, one in enumerate(asked)))
    found = await rig.store.run(lambda unit: unit.approvals_for(requester=DANA.uri, dataset_name="chest"))
    assert len(found) == 3


async def test_no_unit_of_work_begins_before_the_one_before_it_is_kept(
    rig: AccessRig, rigs: list[AccessRig]
) -> None:
    """On which all of the above rests, however the threads happen to be scheduled."""
    inside: list[int] = []
    most: list[int] = []

    def work(unit: Unit) -> None:
        unit.budget("chest")
        inside.append(1)
        time.sleep(0.02)
        most.append(len(inside))
        inside.pop()

    await asyncio.gather(*(rigs[i % 4].store.run(work) for i in range(6)))
    assert most == [1] * 6
