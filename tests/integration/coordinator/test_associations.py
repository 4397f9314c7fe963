"""Who belongs to the federation: asked by attaching, decided by the operator, bound to a key."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import grpc
import pytest

from libs.core.clock import SystemClock
from libs.core.errors import PermissionDenied
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from libs.rpc.identity import Identity, Kind
from libs.rpc.peer_key import own_key_sha256
from libs.rpc.tokens import Role
from services.coordinator.associations import MAX_PENDING_KEYS
from services.coordinator.attachments import Attachments
from services.coordinator.hospitals import Hospitals
from services.coordinator.turns import Turns
from tests.fakes.federation import Federation, eventually, training_plan
from tests.fakes.hospital import FakeHospital, Habits
from tests.fakes.keys import issue_again, tls_files
from tests.fakes.rpc_rig import code_of
from tests.integration.coordinator.conftest import Start

ALPHA = Identity(Kind.HOSPITAL, "alpha")
OPERATOR = Identity(Kind.CLIENT, "eve")
States = pb.AssociationState


async def operator(federation: Federation) -> Any:
    return await federation.stub(OPERATOR, Role.OPERATOR)


async def associations(federation: Federation, **request: Any) -> list[pb.Association]:
    stub = await operator(federation)
    return list((await stub.ListAssociations(pb.ListAssociationsRequest(**request))).associations)


async def decide(
    federation: Federation, state: States, *, hospital: str = ALPHA.uri, key: str = "", **changes: Any
) -> pb.Association:
    name = Identity.parse(hospital).name
    fields = {
        "request_id": f"decide-{States.Name(state)}",
        "hospital_identity": hospital,
        "key_sha256": key or own_key_sha256(tls_files(federation.keys, Identity(Kind.HOSPITAL, name))),
        "state": state,
        **changes,
    }
    stub = await operator(federation)
    answer = await stub.DecideAssociation(pb.DecideAssociationRequest(**fields))
    association: pb.Association = answer.association
    return association


async def refused(federation: Federation, identity: Identity = ALPHA) -> grpc.aio.AioRpcError:
    """How an attempt to attach ends."""
    stub = await federation.stub(identity, Role.WORKER)
    hello = pb.HospitalEvent(hello=pb.HospitalHello(name=identity.name.title()))
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        async for _ in stub.Attach(iter([hello])):
            pass
    return raised.value


async def attach(federation: Federation, name: str = "alpha") -> FakeHospital:
    hospital = FakeHospital(Identity(Kind.HOSPITAL, name), federation.parties, Habits())
    federation.hospitals[name] = hospital
    await federation.attach(name)
    return hospital


@pytest.fixture
async def empty(start: Start) -> Federation:
    """Nobody is preapproved."""
    return await start(preapproved=())


async def test_a_hospital_waits_until_the_operator_approves_its_key(empty: Federation) -> None:
    error = await refused(empty)
    assert code_of(error) == "failed_precondition"
    key = own_key_sha256(tls_files(empty.keys, ALPHA))
    assert "operator" in str(error.details())
    assert key in str(error.details())
    (asked,) = await associations(empty, state=States.ASSOCIATION_STATE_PENDING)
    assert (asked.hospital_identity, asked.name, asked.key_sha256) == (ALPHA.uri, "Alpha", key)
    stub = await empty.stub()
    assert not (await stub.DescribeFederation(pb.DescribeFederationRequest())).nodes
    decided = await decide(empty, States.ASSOCIATION_STATE_APPROVED)
    assert (decided.state, decided.decided_by) == (States.ASSOCIATION_STATE_APPROVED, "eve")
    await attach(empty)
    (node,) = (await stub.DescribeFederation(pb.DescribeFederationRequest())).nodes
    assert (node.name, node.online, node.version) == ("Alpha", True, "test")


@pytest.mark.parametrize(
    "state", [States.ASSOCIATION_STATE_DENIED, States.ASSOCIATION_STATE_REVOKED], ids=["denied", "revoked"]
)
async def test_a_hospital_that_was_turned_away_is_told_so_for_good(empty: Federation, state: States) -> None:
    await refused(empty)
    if state == States.ASSOCIATION_STATE_REVOKED:
        await decide(empty, States.ASSOCIATION_STATE_APPROVED)
    await decide(empty, state, reason="Your contract ended.")
    for _ in range(2):
        error = await refused(empty)
        assert code_of(error) == "permission_denied"
        assert "Your contract ended." in str(error.details())


async def test_a_key_that_did_not_ask_cannot_be_approved(empty: Federation) -> None:
    await refused(empty)
    for changes, code in (
        ({"key": "0" * 64}, "failed_precondition"),
        ({"hospital": Identity(Kind.HOSPITAL, "beta").uri}, "not_found"),
    ):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await decide(empty, States.ASSOCIATION_STATE_APPROVED, **changes)
        assert code_of(raised.value) == code
    assert code_of(await refused(empty)) == "failed_precondition"


async def test_another_key_of_an_approved_hospital_asks_anew_and_disturbs_nobody(
    empty: Federation, tmp_path: Path
) -> None:
    await refused(empty)
    await decide(empty, States.ASSOCIATION_STATE_APPROVED)
    first = await attach(empty)
    with other_key(empty, tmp_path):
        assert code_of(await refused(empty)) == "failed_precondition"
        assert first.error is None
        new_key = own_key_sha256(tls_files(empty.keys, ALPHA))
        await decide(empty, States.ASSOCIATION_STATE_APPROVED, key=new_key, request_id="decide-new")
        # A hospital takes part with one key: the former one is out at once.
        await eventually(lambda: first.error is not None)
        assert code_of(first.error) == "permission_denied"
        await attach(empty)
    assert code_of(await refused(empty)) == "permission_denied"
    states = [association.state for association in await associations(empty)]
    assert states == [States.ASSOCIATION_STATE_REVOKED, States.ASSOCIATION_STATE_APPROVED]


@contextmanager
def other_key(federation: Federation, folder: Path) -> Iterator[None]:
    """Within it, hospital alpha has another certificate of the same CA, with another key."""
    own, kept = federation.keys / "hospital-alpha", folder / "kept"
    shutil.copytree(own, kept)
    try:
        issue_again(federation.keys, ALPHA)
        yield
    finally:
        for name in ("tls.crt", "tls.key"):
            shutil.copy(kept / name, own / name)


async def test_a_preapproved_hospital_is_bound_to_the_first_key_that_it_shows(
    start: Start, tmp_path: Path
) -> None:
    federation = await start()
    await attach(federation)
    (bound,) = await associations(federation)
    assert bound.decided_by == "the coordinator's settings"
    with other_key(federation, tmp_path):
        assert code_of(await refused(federation)) == "failed_precondition"


async def test_revoking_ends_the_stream_and_hides_the_data_at_once(federation: Federation) -> None:
    await decide(federation, States.ASSOCIATION_STATE_REVOKED)
    alpha = federation.hospitals["alpha"]
    await eventually(lambda: alpha.error is not None)
    assert code_of(alpha.error) == "permission_denied"
    stub = await federation.stub()
    found = (await stub.SearchDatasets(pb.SearchDatasetsRequest())).datasets
    assert [dataset.dataset_id for dataset in found] == ["beta/xrays", "gamma/xrays"]
    nodes = (await stub.DescribeFederation(pb.DescribeFederationRequest())).nodes
    assert [node.name for node in nodes] == ["Beta", "Gamma"]


async def test_a_running_round_goes_on_without_a_revoked_hospital(start: Start) -> None:
    # Neither the grace time nor the deadline can be what ends the wait.
    federation = await start(reattach_grace_s=1000)
    for name in ("alpha", "beta", "gamma"):
        await federation.add_hospital(name, trains=(lambda _: False) if name == "alpha" else lambda _: True)
    study_id = await federation.launch(training_plan(rounds=1))
    await eventually(lambda: federation.hospitals["alpha"].ordered("train"))
    await decide(federation, States.ASSOCIATION_STATE_REVOKED)
    study = await federation.ended(study_id)
    assert study.state == pb.STUDY_STATE_READY, study.failure
    assert [uri.rpartition("/")[2] for uri in study.rounds[0].survivor_identities] == ["beta", "gamma"]
    assert study.members[0].decision == pb.DECISION_DENIED


@pytest.mark.parametrize("attached", [True, False], ids=["on its stream", "as a goodbye of its own"])
async def test_a_hospital_that_leaves_is_forgotten_and_asks_again_to_come_back(
    federation: Federation, attached: bool
) -> None:
    alpha = federation.hospitals["alpha"]
    if attached:
        alpha.say(leave=pb.Leave())
    else:
        stub = await federation.stub(ALPHA, Role.WORKER)
        async for _ in stub.Attach(iter([pb.HospitalEvent(leave=pb.Leave())])):
            pytest.fail("nothing is said to a hospital that leaves")
    stub = await federation.stub()

    async def gone() -> bool:
        found = (await stub.SearchDatasets(pb.SearchDatasetsRequest())).datasets
        return [dataset.dataset_id for dataset in found] == ["beta/xrays", "gamma/xrays"]

    await eventually(gone)
    assert code_of(await refused(federation)) == "failed_precondition"
    states = {a.name: a.state for a in await associations(federation)}
    assert states["Alpha"] == States.ASSOCIATION_STATE_PENDING


async def test_a_goodbye_with_another_key_changes_nothing(federation: Federation, tmp_path: Path) -> None:
    with other_key(federation, tmp_path):
        stub = await federation.stub(ALPHA, Role.WORKER)
        async for _ in stub.Attach(iter([pb.HospitalEvent(leave=pb.Leave())])):
            pytest.fail("nothing is said")
    assert {a.state for a in await associations(federation)} == {States.ASSOCIATION_STATE_APPROVED}


async def test_the_same_decision_again_does_nothing_even_after_another(federation: Federation) -> None:
    await decide(federation, States.ASSOCIATION_STATE_REVOKED, request_id="one")
    await decide(federation, States.ASSOCIATION_STATE_APPROVED, request_id="two")
    again = await decide(federation, States.ASSOCIATION_STATE_REVOKED, request_id="one")
    assert again.state == States.ASSOCIATION_STATE_APPROVED
    with pytest.raises(grpc.aio.AioRpcError) as raised:
        await decide(federation, States.ASSOCIATION_STATE_REVOKED, request_id="two")
    assert code_of(raised.value) == "already_exists"


async def test_what_a_state_does_not_allow_is_refused_in_words(empty: Federation) -> None:
    await refused(empty)
    for state in (States.ASSOCIATION_STATE_REVOKED, States.ASSOCIATION_STATE_LEFT):
        with pytest.raises(grpc.aio.AioRpcError) as raised:
            await decide(empty, state)
        assert code_of(raised.value) in {"failed_precondition", "invalid_input"}


async def test_unknown_certificates_cannot_fill_the_table(start: Start) -> None:
    federation = await start(preapproved=(), max_pending_associations=2)
    for name in ("alpha", "beta"):
        await refused(federation, Identity(Kind.HOSPITAL, name))
    error = await refused(federation, Identity(Kind.HOSPITAL, "gamma"))
    assert "Too many" in str(error.details())
    assert len(await associations(federation)) == 2


async def test_associations_are_paged(federation: Federation) -> None:
    stub = await operator(federation)
    first = await stub.ListAssociations(pb.ListAssociationsRequest(page_size=2))
    request = pb.ListAssociationsRequest(page_size=2, page_token=first.next_page_token)
    second = await stub.ListAssociations(request)
    names = [a.name for page in (first, second) for a in page.associations]
    assert names == ["Alpha", "Beta", "Gamma"]
    assert not second.next_page_token


async def test_one_name_cannot_fill_the_table_with_keys(empty: Federation, tmp_path: Path) -> None:
    with other_key(empty, tmp_path):
        for _ in range(MAX_PENDING_KEYS):
            await refused(empty)
            issue_again(empty.keys, ALPHA)
        assert "Too many" in str((await refused(empty)).details())
    assert len(await associations(empty)) == MAX_PENDING_KEYS
    assert "has to approve" in str((await refused(empty, Identity(Kind.HOSPITAL, "beta"))).details())


async def test_what_a_revoked_hospital_still_says_is_not_heard() -> None:
    """Its stream is cut by the decision; an event that had arrived by then must not count."""
    attachments = Attachments(clock=SystemClock(), reattach_grace_s=1)
    attachment = attachments.attach(ALPHA.uri)
    heard: list[pb.HospitalEvent] = []

    class Listening:
        def apply(self, _hospital: Identity, event: pb.HospitalEvent) -> None:
            heard.append(event)
            attachments.expel(ALPHA.uri, PermissionDenied("revoked"))

    async def saying() -> AsyncIterator[pb.HospitalEvent]:
        for _ in range(2):
            yield pb.HospitalEvent(heartbeat=pb.Heartbeat())

    hospitals = Hospitals.__new__(Hospitals)
    hospitals._events = Listening()  # type: ignore[assignment]
    hospitals._turns = Turns()
    await hospitals._read(ALPHA, attachment, saying())
    assert len(heard) == 1
