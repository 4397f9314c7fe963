"""The coordinator's trail of a study: each change once, by whom, and nothing that nobody did."""

from __future__ import annotations

import asyncio
import json
import sys
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2 as pb
from libs.rpc.dev_ca import issuing_secret
from libs.rpc.identity import COORDINATOR, Identity, Kind
from libs.rpc.signing import checkpoint_check, read_authorities
from libs.rpc.tokens import Role, TokenIssuer
from libs.runtime.audit.trail import AuditTrail
from libs.runtime.audit.verify import verify_trail
from libs.runtime.private_files import write_private
from tests.fakes.federation import SCIENTIST, Federation, eventually, training_plan
from tests.fakes.keys import tls_files

DANA = f"{SCIENTIST.uri} ({SCIENTIST.name})"


def exported(federation: Federation) -> list[dict[str, Any]]:
    """The trail's entries, verified."""
    assert federation.coordinator is not None
    audit = federation.coordinator.audit
    audit.checkpoint()
    lines = [json.dumps(line) for line in audit.log.page(after=0, limit=10_000)]
    ca = read_authorities((federation.keys / "ca" / "ca.crt").read_bytes())
    report = verify_trail(lines, check_signature=checkpoint_check(ca), trail=COORDINATOR.uri)
    assert report.finding is None
    return [line for line in map(json.loads, lines) if line["kind"] == "entry"]


async def test_a_study_is_told_from_its_creation_to_its_release(federation: Federation) -> None:
    study_id = await federation.launch(training_plan(rounds=1))
    await federation.ended(study_id)
    entries = exported(federation)
    of_study = [entry for entry in entries if study_id in entry["object"]]
    plans = [entry for entry in of_study if entry["action"] == "plan.approved"]
    assert {entry["actor"] for entry in plans} == {
        f"{hospital.identity.uri} ({name})" for name, hospital in federation.hospitals.items()
    }
    assert len({entry["details"]["plan_hash"] for entry in plans}) == 1
    rest = [(entry["action"], entry["actor"]) for entry in of_study if entry not in plans]
    assert rest[:2] == [("study.created", DANA), ("study.started", DANA)]
    rounds = [(f"round.{verb}", "system") for verb in ("planned", "opened", "ended", "closed")]
    assert [step for step in rest if step[0].startswith("round.")] == rounds * 2
    states = ["approved", "trained", "calibrated", "released"]
    assert [step[0] for step in rest[2:] if step[0].startswith("study.")] == [f"study.{s}" for s in states]
    closed = next(entry for entry in of_study if entry["action"] == "round.closed")
    assert sorted(closed["details"]["survivors"].split()) == ["alpha", "beta", "gamma"]
    assert ("model.released", "system") in {(entry["action"], entry["actor"]) for entry in of_study}


async def test_hospitals_and_their_datasets_are_told_once(federation: Federation) -> None:
    alpha = federation.hospitals["alpha"]
    await alpha.detach()
    await federation.attach("alpha")
    alpha.publish("xrays", images=100)  # the same as before
    alpha.publish("xrays", images=101)
    alpha.publish("other", images=5)
    stub = await federation.stub()

    async def known() -> bool:
        found = await stub.SearchDatasets(pb.SearchDatasetsRequest(name_contains="other"))
        return bool(found.datasets)

    await eventually(known)
    actor = f"{alpha.identity.uri} (alpha)"
    mine = [entry for entry in exported(federation) if entry["actor"] == actor]
    assert [(entry["action"], entry["details"].get("images")) for entry in mine] == [
        ("association.approved", None),
        ("hospital.attached", None),
        ("dataset.published", 100),
        ("hospital.detached", None),
        ("hospital.attached", None),
        ("dataset.published", 101),
        ("dataset.published", 5),
    ]


async def test_predictions_name_who_asked(federation: Federation) -> None:
    study_id = await federation.launch(training_plan(rounds=1))
    model_id = (await federation.ended(study_id)).released_model_id
    clinic = await federation.stub(Identity(Kind.CLIENT, "clinic"), Role.CLINICIAN)
    opened = await clinic.OpenPrediction(pb.OpenPredictionRequest(model_id=model_id, batch=2))
    (entry,) = [entry for entry in exported(federation) if entry["action"] == "prediction.opened"]
    assert entry["object"] == opened.computation_id
    assert entry["actor"] == "spiffe://trefoil.local/client/clinic (clinic)"
    assert (entry["details"]["model"], entry["details"]["batch"]) == (model_id, 2)


async def test_a_study_that_could_not_be_stored_leaves_no_entry(
    federation: Federation, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The entry is part of the change's transaction, and the other way round."""
    assert federation.coordinator is not None
    study_id = await federation.launch(training_plan(rounds=1))
    await federation.ended(study_id)
    before = exported(federation)

    def fails(*_: object) -> None:
        raise KeyError

    with monkeypatch.context() as patch:
        patch.setattr(AuditTrail, "append", fails)
        with pytest.raises(KeyError):
            federation.coordinator.database.catalogue.remove_dataset("alpha/xrays")
    assert "alpha/xrays" in federation.coordinator.database.catalogue.datasets(["alpha/xrays"])
    assert exported(federation) == before


async def test_the_command_line_exports_shows_and_verifies(federation: Federation) -> None:
    await federation.ended(await federation.launch(training_plan(rounds=1)))
    profile = _profile(federation)
    out, ca = federation.folder / "trail.jsonl", federation.keys / "ca" / "ca.crt"
    await _trefoil("audit", "export", "--from", "coordinator", "--out", out, "-p", profile)
    live = await _trefoil(
        "audit", "show", "--from", "coordinator", "-p", profile, "--action", "trail.", "--json"
    )
    assert [entry["action"] for entry in json.loads(live)] == ["trail.exported"] * 2

    told = await _trefoil("audit", "verify", out, "--ca", ca, "--trail", COORDINATOR.uri, "--json")
    verified = json.loads(told)
    assert (verified["whole"], verified["not_yet_signed"]) == (True, 0)
    broken = federation.folder / "broken.jsonl"
    lines = out.read_text().splitlines()
    broken.write_text("\n".join(lines[:3] + lines[4:]))
    told = await _trefoil("audit", "verify", broken, "--ca", ca, code=1)
    assert "Entry 4 is missing before line 4" in told


async def _trefoil(*arguments: object, code: int = 0) -> str:
    """What the command prints, in a process of its own."""
    command = [sys.executable, "-m", "libs.cli.main", *map(str, arguments)]
    process = await asyncio.create_subprocess_exec(*command, stdout=asyncio.subprocess.PIPE)
    out, _ = await process.communicate()
    assert process.returncode == code
    return out.decode()


def _profile(federation: Federation) -> Path:
    """An operator's profile."""
    token = federation.folder / "operator.token"
    issuer = TokenIssuer(issuing_secret(federation.keys, "federation"))
    write_private(token, issuer.issue(subject="olga", role=Role.OPERATOR, lifetime=timedelta(hours=1)))
    tls = tls_files(federation.keys, SCIENTIST)
    profile = federation.folder / "operator.toml"
    profile.write_text(
        f"""
        [tls]
        certificate = "{tls.certificate}"
        key = "{tls.key}"
        ca = "{tls.ca}"
        [coordinator]
        address = "{federation.address}"
        token = "{token}"
        """
    )
    return profile


async def test_associations_and_requests_for_access_are_entries_with_who_decided(
    federation: Federation,
) -> None:
    alpha = federation.hospitals["alpha"]
    operator = await federation.stub(Identity(Kind.CLIENT, "eve"), Role.OPERATOR)
    (first, *_) = (await operator.ListAssociations(pb.ListAssociationsRequest())).associations
    await operator.DecideAssociation(
        pb.DecideAssociationRequest(
            request_id="decide-1",
            hospital_identity=alpha.identity.uri,
            key_sha256=first.key_sha256,
            state=pb.ASSOCIATION_STATE_REVOKED,
        )
    )
    (entry,) = [entry for entry in exported(federation) if entry["action"] == "association.revoked"]
    assert entry["actor"] == "spiffe://trefoil.local/client/eve (eve)"
    assert (entry["object"], entry["outcome"]) == (alpha.identity.uri, "refused")
    assert entry["details"] == {"key_sha256": first.key_sha256}
