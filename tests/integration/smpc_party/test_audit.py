"""The trails of three parties after a round, predictions and refusals: whole, and without a value."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from datetime import timedelta
from typing import Any

import numpy as np
import pytest

from libs.core.errors import PermissionDenied, Unavailable
from libs.core.ids import PARTIES, PartyId
from libs.rpc._generated.trefoil.audit.v1 import audit_pb2, audit_pb2_grpc
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.channel import open_channel, translated
from libs.rpc.dev_ca import issuing_secret
from libs.rpc.identity import party_identity
from libs.rpc.signing import checkpoint_check, read_authorities
from libs.rpc.tokens import Role, TokenIssuer
from libs.runtime.audit.verify import verify_trail
from libs.runtime.private_files import write_private
from tests.fakes.keys import tls_files
from tests.fakes.party_rig import (
    CLINIC,
    HOSPITALS,
    SCIENTIST,
    STUDY,
    PartyRig,
    SmallModel,
    contribution_ref,
    model_ref,
    open_request,
    round_ref,
)
from tests.fakes.prediction_talk import MODEL

LENGTH = 100
_HOUR = timedelta(hours=1)
Trail = Callable[[PartyRig, PartyId], Awaitable[list[dict[str, Any]]]]


@pytest.fixture
def trail(tmp_path_factory: pytest.TempPathFactory) -> Trail:
    """Exports a party's trail as an auditor, verifies it, and gives its entries."""
    folder = tmp_path_factory.mktemp("auditor")

    async def export(rig: PartyRig, party: PartyId) -> list[dict[str, Any]]:
        issuer = TokenIssuer(issuing_secret(rig.keys, "federation"))
        token = issuer.issue(subject="ines", role=Role.AUDITOR, lifetime=_HOUR)
        write_private(folder / "token", token)
        channel = open_channel(
            address=rig.address(party),
            server=party_identity(party),
            tls=tls_files(rig.keys, CLINIC),
            token_file=folder / "token",
        )
        async with channel:
            stub = audit_pb2_grpc.AuditServiceStub(channel)
            request = audit_pb2.ExportTrailRequest()
            lines = [answer.line.decode() async for answer in stub.ExportTrail(request)]
        ca = read_authorities((rig.keys / "ca" / "ca.crt").read_bytes())
        report = verify_trail(lines, check_signature=checkpoint_check(ca), trail=party_identity(party).uri)
        assert (report.finding, report.not_yet_signed) == (None, 0)
        return [line for line in map(json.loads, lines) if line["kind"] == "entry"]

    return export


def about(entries: list[dict[str, Any]], action: str) -> list[dict[str, Any]]:
    return [entry for entry in entries if entry["action"] == action]


async def test_a_round_is_told_by_every_party(rig: PartyRig, trail: Trail) -> None:
    update = np.arange(LENGTH + 4, dtype=np.uint32)
    await rig.deal_model(update[:LENGTH], model_id=f"{STUDY}/v0")
    await rig.tell_all("OpenRound", open_request(1, length=LENGTH))
    uploads = {hospital: await rig.deal(update, contribution_ref(1), hospital) for hospital in HOSPITALS[:2]}
    await rig.close_round(1)
    await rig.fetch(model_ref(f"{STUDY}/round-1"), HOSPITALS[2])
    for party in PARTIES:
        entries = await trail(rig, party)
        coordinator = "spiffe://trefoil.local/coordinator"
        assert [entry["action"] for entry in entries] == [
            "model.registered",
            "share.stored",
            "round.opened",
            "share.stored",
            "share.stored",
            "round.closed",
            "share.fetched",
            "trail.exported",
        ]
        opened, closed, fetched, exported = entries[2], entries[5], entries[6], entries[7]
        assert (opened["actor"], closed["actor"]) == (coordinator, coordinator)
        assert closed["details"]["survivors"] == "alpha beta"
        assert {entry["actor"]: entry["details"]["upload_id"] for entry in entries[3:5]} == {
            f"{hospital.uri} ({hospital.name})": upload for hospital, upload in uploads.items()
        }
        assert (fetched["actor"], fetched["object"]) == (
            f"{HOSPITALS[2].uri} ({HOSPITALS[2].name})",
            f"model {STUDY}/round-1",
        )
        assert exported["actor"] == f"{CLINIC.uri} (ines)"


async def test_rounds_that_come_to_nothing_are_told(rig: PartyRig, trail: Trail) -> None:
    await rig.deal_model(np.zeros(LENGTH, np.uint32), model_id=f"{STUDY}/v0")
    await rig.tell_all("OpenRound", open_request(1, length=LENGTH))
    await rig.close_round(1)
    await rig.tell_all("AbandonRound", party_pb2.AbandonRoundRequest(round=round_ref(1)))
    entries = await trail(rig, PARTIES[0])
    (short,), (abandoned,) = about(entries, "round.fell_short"), about(entries, "round.abandoned")
    assert (short["outcome"], abandoned["object"]) == ("failed", f"round 1 of study {STUDY}")


async def test_refused_contributions_are_told_by_name_and_by_nothing_else(
    rig: PartyRig, trail: Trail
) -> None:
    check = types_pb2.ContributionCheck(max_norm=1 << 20)
    request = open_request(1, length=LENGTH, base_model_id="", metrics=0, check=check)
    await rig.tell_all("OpenRound", request)
    good, bad = np.ones(LENGTH, np.uint32), np.full(LENGTH, 1 << 25, np.uint32)
    for hospital, update in zip(HOSPITALS[:2], (good, bad), strict=True):
        await rig.deal(update, contribution_ref(1), hospital)
    await rig.close_round(1)
    await rig.deal(good, contribution_ref(1), HOSPITALS[2])
    await rig.close_round(1)
    for party in PARTIES:
        entries = await trail(rig, party)
        (short,), (closed,) = about(entries, "round.fell_short"), about(entries, "round.closed")
        assert short["details"] == {"attempt": 0, "refused": "beta"}
        result = f"{STUDY}/round-1"
        assert closed["details"] == {
            "attempt": 0,
            "survivors": "alpha gamma",
            "refused": "beta",
            "result": result,
        }


async def test_a_hospitals_word_about_a_model_is_told_with_what_it_said(
    rig: PartyRig, small_model: SmallModel, trail: Trail
) -> None:
    await rig.release(small_model)
    denied = party_pb2.ModelUseRule(asker_identity="*")
    allowed = party_pb2.ModelUseRule(asker_identity=CLINIC.uri, allowed=True, max_predictions=3)
    await rig.set_use(HOSPITALS[1], allowed, denied, revision=4)
    await rig.set_use(HOSPITALS[1], denied, revision=3)
    for party in PARTIES:
        [told] = about(await trail(rig, party), "model.use_set")
        assert (told["actor"], told["object"]) == (f"{HOSPITALS[1].uri} (beta)", f"model {MODEL}")
        assert told["details"] == {"revision": 4, "allowed": "clinic", "denied": "*"}


async def test_predictions_are_told_by_who_asked_what_and_how_it_ended(
    ready: PartyRig, small_model: SmallModel, trail: Trail
) -> None:
    client = await ready.client()
    assignment = await ready.open_prediction(MODEL, batch=2)
    await client.predict(assignment, small_model.plan, small_model.pixels(2))
    burned = await ready.open_prediction(MODEL)  # its client never comes
    for party in PARTIES:
        await ready.parties[party]._predictions.stop()
        entries = await trail(ready, party)
        name = f"prediction {assignment.computation_id}"
        mine = [entry for entry in entries if entry["object"] == name]
        role = "dealer" if party == 0 else "evaluator"
        claimed = [] if party == 0 else ["prediction.claimed"]
        assert [entry["action"] for entry in mine] == ["prediction.opened", *claimed, "prediction.finished"]
        details = {"model": MODEL, "batch": 2, "client": CLINIC.uri, "role": role}
        assert all(entry["details"] == details for entry in mine)
        if claimed:
            assert mine[1]["actor"] == f"{CLINIC.uri} (clinic)"
        if party == 0:
            continue  # a dealer may have done its part before it was told to stop
        (end,) = [
            entry
            for entry in about(entries, "prediction.burned")
            if entry["object"] == f"prediction {burned.computation_id}"
        ]
        assert end["outcome"] == "failed"


async def test_no_prediction_begins_while_its_entry_could_not_be_kept(
    ready: PartyRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("libs.runtime.audit.writer.MAX_WAITING", 0)
    with pytest.raises(Unavailable, match="audit trail"):
        await ready.open_prediction(MODEL)


async def test_what_was_refused_is_told_and_a_flood_of_it_is_counted(rig: PartyRig, trail: Trail) -> None:
    with pytest.raises(PermissionDenied), translated():
        await (await rig.stub(PARTIES[0], SCIENTIST)).OpenRound(open_request(1, length=LENGTH))
    await rig.deal_model(np.zeros(LENGTH, np.uint32), model_id=f"{STUDY}/v0")
    # Asked of this party alone: of three calls at once, the first refusal cancels the others on their way.
    stub = await rig.stub(PARTIES[0], SCIENTIST)
    for _ in range(30):
        with pytest.raises(PermissionDenied), translated():  # a reader of other models
            await anext(aiter(stub.GetShares(party_pb2.GetSharesRequest(vector=model_ref(f"{STUDY}/v0")))))
    rig.parties[PARTIES[0]]._audit.summarise()
    refused = [entry for entry in await trail(rig, PARTIES[0]) if entry["outcome"] == "refused"]
    actor = f"{SCIENTIST.uri} ({SCIENTIST.name})"
    assert [(entry["action"], entry["object"].rpartition("/")[2]) for entry in refused] == [
        ("call.refused", "OpenRound"),
        ("call.refused", "GetShares"),
        ("calls.refused", "GetShares"),
    ]
    assert refused[0]["actor"] == SCIENTIST.uri  # its token was not looked at
    assert refused[1]["actor"] == refused[2]["actor"] == actor
    assert refused[2]["details"]["count"] == 29


async def test_the_trail_goes_on_after_a_restart(rig: PartyRig, trail: Trail) -> None:
    await rig.deal_model(np.zeros(LENGTH, np.uint32), model_id=f"{STUDY}/v0")
    before = await trail(rig, PARTIES[1])
    await rig.stop(PARTIES[1])
    await rig.start(PARTIES[1])
    after = await trail(rig, PARTIES[1])
    assert after[: len(before)] == before
    assert len(after) == len(before) + 1


async def test_only_those_who_may_read_it_get_it(rig: PartyRig) -> None:
    stub = audit_pb2_grpc.AuditServiceStub(await rig.channel(PARTIES[0], SCIENTIST))
    with pytest.raises(PermissionDenied), translated():
        async for _ in stub.ExportTrail(audit_pb2.ExportTrailRequest()):
            pass
