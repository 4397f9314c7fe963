"""The journey by commands alone, as staff, scientist and clinic type them."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image
from typer.testing import CliRunner

from libs.cli.local_cluster import LocalCluster
from libs.cli.main import app
from libs.core.errors import NotFound
from libs.data.export import export_part
from libs.data.phantom import make_phantoms

pytestmark = pytest.mark.timeout(240)

HOSPITALS = ("north", "east")
SIZE = 16


class Federation:
    """A cluster, and commands run with the profile of one of its people."""

    def __init__(self, cluster: LocalCluster) -> None:
        self.cluster = cluster

    def command(self, who: str, *arguments: str) -> str:
        """What the command prints on stdout."""
        result = CliRunner().invoke(app, [*arguments, "--profile", str(self.cluster.profile(who))])
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        assert result.exit_code == 0, result.output
        return result.stdout

    def ask(self, who: str, *arguments: str) -> Any:
        """The JSON that the command prints."""
        return json.loads(self.command(who, *arguments, "--json"))


@pytest.fixture(scope="module")
def federation(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    with LocalCluster(tmp_path_factory.mktemp("commands"), hospitals=HOSPITALS) as cluster:
        yield Federation(cluster)


@pytest.fixture(scope="module")
def study_id(federation: Federation) -> str:
    """Published, proposed, approved and trained by commands."""
    for seed, hospital in enumerate(HOSPITALS):
        folder = federation.cluster.folder(f"hospital-{hospital}") / "data" / "x-rays"
        export_part(make_phantoms(40, size=SIZE, seed=seed), folder)
        staff = f"staff-{hospital}"
        published = federation.ask(staff, "dataset", "publish", "x-rays", str(folder), "--tag", "chest")
        assert published["images"] == 40
    found = federation.ask("scientist", "dataset", "search", "--tag", "chest")
    assert {dataset["hospital"] for dataset in found} == set(HOSPITALS)
    options = ["--image-size", str(SIZE), "--rounds", "1", "--no-watch", "--title", "By hand"]
    options += ["--ask", "spiffe://trefoil.local/client/clinic"]
    created = federation.ask("scientist", "study", "create", "--tag", "chest", *options)
    study: str = created["study_id"]
    for hospital in HOSPITALS:
        staff = f"staff-{hospital}"
        (asked,) = federation.ask(staff, "request", "list", "--pending")
        assert asked["training_plan"]["rounds"] == 1
        budget = federation.ask(staff, "dataset", "budget", "x-rays", "--without-privacy")
        assert budget["left"]["epsilon"] == "inf"
        arguments = ["request", "approve", study, "--hash", asked["plan_hash"], "--without-privacy"]
        assert federation.ask(staff, *arguments)["state"] == "approved"
    assert federation.ask("scientist", "study", "watch", study)["state"] == "ready"
    return study


def test_people_see_the_study_and_its_rounds(federation: Federation, study_id: str) -> None:
    shown = federation.command("scientist", "study", "show", study_id)
    assert "By hand" in shown
    assert "ready" in shown
    assert study_id in federation.command("scientist", "study", "list")


def test_a_clinic_asks_about_image_files(federation: Federation, study_id: str, tmp_path: Path) -> None:
    files = []
    for number, pixels in enumerate(make_phantoms(8, size=64, seed=9).images):
        files.append(str(tmp_path / f"{number}.png"))
        Image.fromarray(pixels).save(files[-1])
    answer = federation.ask("clinic", "predict", *files)
    assert [row["image"] for row in answer["images"]] == files
    for row in answer["images"]:
        assert 0 <= row["probability"] <= 1
        assert row["label"] in {"NORMAL", "PNEUMONIA"}
    assert answer["latency_s"] > 0
    (model,) = federation.ask("clinic", "model", "list")
    assert answer["model_id"] == model["model_id"]
    assert [uri.rpartition("/")[2] for uri in model["may_ask"]["identities"]] == ["clinic", "scientist"]
    shown = federation.command("clinic", "model", "show", model["model_id"])
    assert "clinic, scientist" in shown
    assert "trefoil request create --purpose prediction" in " ".join(shown.split())
    told = federation.command("clinic", "predict", files[0])
    assert "Who saw what" in told
    assert "no two of the three parties" in told


def test_staff_read_in_the_ledger_what_was_taken_and_under_which_approval(
    federation: Federation, study_id: str
) -> None:
    (request,) = federation.ask("staff-north", "request", "list")
    ledger = federation.ask("staff-north", "ledger", "show", "--dataset", "x-rays")
    taken = ledger["entries"][-1]
    assert (taken["kind"], taken["study_id"], taken["cost"]["epsilon"]) == ("admitted", study_id, "inf")
    assert taken["approval_id"] == request["approval"]["approval_id"]
    assert "admitted" in federation.command("staff-north", "ledger", "show")
    assert study_id in federation.command("staff-north", "request", "show", study_id)


def test_staff_withdraw_a_data_set_and_scientists_no_longer_find_it(
    federation: Federation, study_id: str
) -> None:
    federation.command("staff-north", "dataset", "withdraw", "x-rays")
    assert federation.ask("staff-north", "dataset", "list") == []
    found = federation.ask("scientist", "dataset", "search", "--tag", "chest")
    assert [dataset["hospital"] for dataset in found] == ["east"]


def test_an_unknown_tag_is_told_with_what_to_do(federation: Federation, study_id: str) -> None:
    profile = ["--profile", str(federation.cluster.profile("scientist"))]
    found = CliRunner().invoke(app, ["dataset", "search", "--tag", "chset", *profile])
    assert (found.exit_code, found.stdout) == (0, "")
    assert "No data set with all of the tags chset was found. Try fewer tags" in found.stderr
    with pytest.raises(NotFound, match=r"No data set with the tags chset\. See what there is: trefoil"):
        federation.command("scientist", "study", "create", "--tag", "chset")


def test_the_operators_view_names_parties_and_hospitals(federation: Federation) -> None:
    status = federation.ask("scientist", "coordinator", "status")
    assert [party["index"] for party in status["parties"]] == [0, 1, 2]
    assert {node["name"] for node in status["nodes"] if node["online"]} == set(HOSPITALS)
    assert federation.ask("staff-north", "hospital", "status")["attached_to_coordinator"]


def test_a_scientist_asks_for_access_once_and_sees_what_became_of_it(
    federation: Federation, study_id: str, tmp_path: Path
) -> None:
    shown = federation.ask("scientist", "study", "show", study_id)
    plan = tmp_path / "plan.json"
    plan.write_text(json.dumps(shown["training_plan"]))
    asking = ["request", "create", "--dataset", "east/x-rays", "--plan", str(plan), "--reason", "A detector."]
    asking += ["--epsilon", "2.5", "--delta", "0.00001", "--request-id", "mine"]
    first = federation.ask("scientist", *asking)
    assert first["plan_hash"] == shown["plan_hash"]
    assert federation.ask("scientist", *asking)["request_id"] == first["request_id"] == "mine"
    (known,) = federation.ask("scientist", "request", "status")
    assert known["asked"] == {"epsilon": "2.5", "delta": "0.00001", "uses": 1}
    assert known["requested_by"] == "scientist"
    assert "east/x-rays" in federation.command("operator", "request", "status")
    assert federation.ask("clinic", "request", "status") == []


def test_the_operator_revokes_a_hospital_and_lets_it_in_again(federation: Federation, study_id: str) -> None:
    listed = federation.ask("operator", "node", "list", "--state", "approved")
    keys = {node["name"]: node["key_sha256"] for node in listed}
    assert set(keys) == set(HOSPITALS)
    assert federation.ask("operator", "node", "revoke", "east", "--reason", "Test.")["state"] == "revoked"
    found = federation.ask("scientist", "dataset", "search")
    assert "east" not in [dataset["hospital"] for dataset in found]
    wait_until(lambda: "Test." in federation.command("staff-east", "hospital", "status"))
    federation.command("operator", "node", "approve", "east", "--key", keys["east"])
    wait_until(lambda: federation.ask("staff-east", "hospital", "status")["attached_to_coordinator"])


def test_a_hospital_leaves_and_waits_for_approval_when_it_comes_back(
    federation: Federation, study_id: str
) -> None:
    def east() -> str:
        return federation.command("staff-east", "hospital", "status")

    federation.command("staff-east", "hospital", "leave")
    assert "has left the federation" in east()
    wait_until(lambda: federation.ask("operator", "node", "list", "--state", "left") != [])
    federation.command("staff-east", "hospital", "join")
    wait_until(lambda: "waiting for the operator's approval" in east())
    (waiting,) = federation.ask("operator", "node", "list", "--state", "pending")
    assert waiting["key_sha256"] in east()
    federation.command("operator", "node", "approve", "east", "--key", waiting["key_sha256"])
    wait_until(lambda: "is attached" in east())


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 40.0) -> None:
    """Commands return at once; what they began takes a moment."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.2)
