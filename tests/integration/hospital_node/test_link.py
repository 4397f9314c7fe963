"""The stream to the coordinator, over real mTLS."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC
from pathlib import Path

import pytest

from libs.core.errors import FailedPrecondition, Unavailable
from libs.core.ids import PartyId
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from libs.rpc._generated.trefoil.coordinator.v1.coordinator_pb2_grpc import (
    add_CoordinatorServiceServicer_to_server,
)
from libs.rpc.channel import open_channel
from libs.rpc.identity import COORDINATOR, Identity, Kind
from libs.rpc.tokens import Role
from services.hospital_node.access.domain import Standing, Told
from services.hospital_node.access.statements import Asked, Proposal
from services.hospital_node.adapters.transactions import Transactions
from services.hospital_node.domain import Order, TaskKey
from services.hospital_node.link import Backoff, CoordinatorLink, Outbox
from tests.fakes.access import AccessRig, People, cost
from tests.fakes.hospital_federation import FakeFederation, write_token
from tests.fakes.hospital_ports import NOW, PLAN, STUDY, dataset, shelve, unshelve
from tests.fakes.keys import tls_files


@dataclass
class KeepingInbox:
    addresses: Mapping[PartyId, str] = field(default_factory=dict)
    proposals: list[Proposal] = field(default_factory=list)
    asked: list[Asked] = field(default_factory=list)
    orders: list[Order] = field(default_factory=list)
    ended: list[str] = field(default_factory=list)
    refused: list[TaskKey] = field(default_factory=list)
    came: asyncio.Event = field(default_factory=asyncio.Event)

    def parties_named(self, addresses: Mapping[PartyId, str]) -> None:
        self.addresses = addresses

    async def plan_proposed(self, proposal: Proposal) -> None:
        self.proposals.append(proposal)
        self.came.set()

    async def access_asked(self, asked: Asked) -> None:
        self.asked.append(asked)
        self.came.set()

    def ordered(self, order: Order) -> None:
        self.orders.append(order)
        self.came.set()

    async def contribution_refused(self, key: TaskKey) -> None:
        self.refused.append(key)
        self.came.set()

    async def study_ended(self, study_id: str) -> None:
        self.ended.append(study_id)
        self.came.set()


@dataclass
class Attached:
    link: CoordinatorLink
    outbox: Outbox
    inbox: KeepingInbox


@pytest.fixture
async def attached(federation: FakeFederation, keys: Path, tmp_path: Path) -> AsyncIterator[Attached]:
    transactions = Transactions(f"sqlite:///{tmp_path}/hospital.db")
    rig = await AccessRig(transactions, People(tmp_path / "people")).ready()
    await shelve(rig.datasets, dataset("lungs"))
    await unshelve(rig.datasets, "lungs")
    await rig.access.plan_proposed(rig.people.proposal())
    await rig.decide(STUDY)
    await rig.access.access_asked(rig.people.asked())
    token = write_token(keys, tmp_path / "worker.token", issuer="federation", role=Role.WORKER)
    alpha = Identity(Kind.HOSPITAL, "alpha")
    outbox, inbox = Outbox(), KeepingInbox()
    link = CoordinatorLink(
        name="Alpha",
        connect=lambda: open_channel(
            address=federation.address, server=COORDINATOR, tls=tls_files(keys, alpha), token_file=token
        ),
        outbox=outbox,
        inbox=inbox,
        datasets=rig.datasets,
        decisions=rig.access.decisions,
        backoff=Backoff(first_s=0.05, most_s=0.2),
        heartbeat_s=0.1,
    )
    running = asyncio.create_task(link.run())
    yield Attached(link, outbox, inbox)
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    transactions.close()


async def test_the_node_says_who_it_is_what_it_publishes_and_what_was_decided(
    attached: Attached, federation: FakeFederation
) -> None:
    await federation.coordinator.heard("access_decision")
    said = federation.coordinator.events
    assert [event.WhichOneof("event") for event in said[:5]] == [
        "hello",
        "dataset_withdrawn",
        "dataset_published",
        "plan_decision",
        "access_decision",
    ]
    assert said[1].dataset_withdrawn.name == "lungs"
    published = pb.Dataset(
        name="chest",
        description="Children's radiographs",
        tags=["chest", "pneumonia"],
        modality="chest X-ray",
        images=10,
        version=1,
        content_hash="c" * 64,
        disclosed_counts={"NORMAL": 0, "PNEUMONIA": 0},
        disclosure=pb.COUNT_DISCLOSURE_ROUNDED,
    )
    published.published_at.FromDatetime(NOW)
    assert said[2].dataset_published == published
    decision = said[3].plan_decision
    assert (decision.study_id, decision.plan_hash, decision.approved) == (STUDY, PLAN.hash, True)
    waiting = said[4].access_decision
    assert (waiting.request_id, waiting.state) == ("request-1", pb.ACCESS_STATE_PENDING)


async def test_it_sends_heartbeats_while_nothing_happens(
    attached: Attached, federation: FakeFederation
) -> None:
    await federation.coordinator.heard("heartbeat", count=3)


@pytest.mark.parametrize("outage", ["restart", "hangup"])
async def test_after_an_outage_it_comes_back_and_says_everything_again(
    attached: Attached, federation: FakeFederation, outage: str
) -> None:
    await federation.coordinator.heard("plan_decision")
    if outage == "restart":
        await federation.stop_coordinator()
        await asyncio.sleep(0.5)
        assert not attached.link.attached
        await federation.start_coordinator()
    else:
        federation.coordinator.hang_up()
    await federation.coordinator.heard("hello", count=2)
    await federation.coordinator.heard("dataset_published", count=2)
    await federation.coordinator.heard("plan_decision", count=2)
    await asyncio.sleep(0.1)
    assert attached.link.attached


async def test_a_message_that_makes_no_sense_changes_nothing_and_the_stream_goes_on(
    attached: Attached, federation: FakeFederation
) -> None:
    await federation.coordinator.heard("plan_decision")
    federation.coordinator.say(pb.CoordinatorOrder())
    federation.coordinator.say(pb.CoordinatorOrder(train=pb.TrainOrder()))
    federation.coordinator.say(pb.CoordinatorOrder(study_ended=pb.StudyEnded(study_id="study-9")))
    await asyncio.wait_for(attached.inbox.came.wait(), 10)
    assert (attached.inbox.orders, attached.inbox.ended) == ([], ["study-9"])
    assert federation.coordinator.attachments == 1


async def test_what_was_decided_is_sent_as_it_was_granted(
    attached: Attached, federation: FakeFederation
) -> None:
    await federation.coordinator.heard("plan_decision")
    attached.outbox.access_decided(
        Told("request-2", Standing.APPROVED, "less", cost("1.5", "0.00001"), 2, NOW)
    )
    [told] = await federation.coordinator.heard(
        "access_decision", where=lambda e: e.request_id == "request-2"
    )
    assert (told.state, told.reason, told.uses) == (pb.ACCESS_STATE_APPROVED, "less", 2)
    assert (told.granted.epsilon, told.granted.delta) == ("1.5", "0.00001")
    assert told.expires_at.ToDatetime(tzinfo=UTC) == NOW


async def test_a_request_for_access_arrives_as_it_was_signed(
    attached: Attached, federation: FakeFederation
) -> None:
    await federation.coordinator.heard("plan_decision")
    order = pb.AccessRequestOrder(request_id="request-3", requested_by="dana", training_plan=b"plan")
    order.statement.payload = b"words"
    federation.coordinator.say(pb.CoordinatorOrder(access_request=pb.AccessRequestOrder()))
    federation.coordinator.say(pb.CoordinatorOrder(access_request=order))
    await asyncio.wait_for(attached.inbox.came.wait(), 10)
    assert attached.inbox.asked == [Asked("request-3", order.statement, b"plan", "dana")]


async def test_the_parties_addresses_arrive_with_the_welcome(
    attached: Attached, federation: FakeFederation
) -> None:
    await federation.coordinator.heard("heartbeat")
    assert sorted(attached.inbox.addresses) == [0, 1, 2]


async def test_another_service_in_the_coordinators_place_is_not_talked_to(
    attached: Attached, federation: FakeFederation
) -> None:
    await federation.coordinator.heard("plan_decision")
    await federation.stop_coordinator()
    before = federation.coordinator.attachments
    impostor = federation._server(Identity(Kind.PARTY, "1"), federation.address)
    service = "trefoil.coordinator.v1.CoordinatorService"
    impostor.add(add_CoordinatorServiceServicer_to_server, federation.coordinator, service)
    await impostor.start()
    await asyncio.sleep(0.6)
    assert not attached.link.attached
    assert federation.coordinator.attachments == before
    await impostor.stop(grace_s=0)
    await federation.start_coordinator()


async def test_a_refusal_is_kept_for_staff_to_read_until_the_coordinator_lets_us_in(
    attached: Attached, federation: FakeFederation
) -> None:
    await federation.coordinator.heard("heartbeat")
    assert attached.link.refusal == ""
    federation.coordinator.refuses = FailedPrecondition("An operator has to approve this hospital first.")
    federation.coordinator.hang_up()
    await until(lambda: "operator" in attached.link.refusal)
    federation.coordinator.refuses = Unavailable("The coordinator is stopping.")
    await until(lambda: attached.link.refusal == "")
    federation.coordinator.refuses = None
    await federation.coordinator.heard("hello", count=2)


async def test_a_goodbye_is_a_stream_of_its_own_and_returns_once_heard(
    attached: Attached, federation: FakeFederation
) -> None:
    await attached.link.say_goodbye()
    await federation.coordinator.heard("leave")
    await federation.stop_coordinator()
    with pytest.raises(Unavailable):
        await attached.link.say_goodbye()
    await federation.start_coordinator()


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(10):
        while not condition():  # noqa: ASYNC110 - the link sets no events
            await asyncio.sleep(0.01)


def test_waits_double_up_to_a_limit_and_are_shortened_by_at_most_half() -> None:
    backoff = Backoff(first_s=1.0, most_s=10.0)
    assert [backoff.wait_s(n, jitter=0.0) for n in range(6)] == [1, 2, 4, 8, 10, 10]
    assert backoff.wait_s(1000, jitter=0.999) > 5
