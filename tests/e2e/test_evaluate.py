"""`trefoil evaluate` as a person starts it: over real services, killed, and started again."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import psutil
import pytest

pytestmark = [pytest.mark.timeout(280), pytest.mark.slow]

TINY = [
    "--hospitals",
    "2",
    "--size",
    "16",
    "--rounds",
    "1",
    "--phantoms",
    "120",
    "--epsilons",
    "8",
    "--quick",
]


def start(output: Path, *options: str) -> subprocess.Popen[str]:
    command = [sys.executable, "-m", "libs.cli.main", "evaluate", "--output", str(output), *TINY, *options]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def finish(process: subprocess.Popen[str]) -> tuple[dict[str, Any], str]:
    """results.json as printed, and the remarks."""
    try:
        printed, remarks = process.communicate(timeout=240)
    finally:
        process.kill()
    assert process.returncode == 0, remarks
    document: dict[str, Any] = json.loads(printed)
    return document, remarks


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any]]:
    folder = tmp_path_factory.mktemp("evaluation") / "run"
    document, _ = finish(start(folder, "--rows", "federated,secure,encrypted", "--workers", "1", "--json"))
    return folder, document


def test_real_services_end_with_the_weights_that_were_computed_in_one_process(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, document = finished
    rows = {row["kind"]: row for row in document["rows"]}
    assert "real services ended with the weights of the federated row, bit for bit" in (
        folder / "report.md"
    ).read_text("utf-8")
    for name in ("auc", "accuracy", "threshold", "calibration"):
        assert rows["secure"][name] == rows["federated"][name]
    assert rows["secure"]["cost"]["bytes"] > rows["federated"]["cost"]["bytes"]


def test_encrypted_answers_are_those_of_the_released_model(finished: tuple[Path, dict[str, Any]]) -> None:
    rows = {row["kind"]: row for row in finished[1]["rows"]}
    (asked,) = rows["encrypted"]["seeds"]
    assert asked["asked_images"] == finished[1]["data"]["test_images"]
    assert asked["same_labels"] >= asked["asked_images"] - 1
    assert asked["largest_logit_difference"] < 0.02
    assert asked["threshold"] == rows["secure"]["threshold"]
    assert rows["encrypted"]["auc"]["estimate"] == pytest.approx(rows["secure"]["auc"]["estimate"], abs=0.02)


def test_keys_shares_and_images_are_gone_and_the_logs_are_kept(
    finished: tuple[Path, dict[str, Any]],
) -> None:
    folder, _ = finished
    left = {path.name for path in (folder / "cluster").rglob("*") if path.is_file()}
    assert left == {
        f"{name}.jsonl"
        for name in ("coordinator", "party-0", "party-1", "party-2", "hospital-north", "hospital-east")
    }


def test_the_same_again_starts_no_process_and_says_the_same(finished: tuple[Path, dict[str, Any]]) -> None:
    folder, before = finished
    after, remarks = finish(start(folder, "--rows", "federated,secure,encrypted", "--workers", "1", "--json"))
    assert "3 results are there, 0 are to be made" in remarks
    assert "Starting" not in remarks
    assert after["rows"] == before["rows"]


def test_a_model_with_privacy_is_asked_without_its_hospitals_and_what_was_killed_goes_on(
    tmp_path: Path,
) -> None:
    options = ("--rows", "private,encrypted,secure", "--workers", "1", "--json")
    killed = start(tmp_path, *options)
    deadline = time.monotonic() + 120
    while not list((tmp_path / "cluster").glob("*/federation/party-2")):  # the training is stored by then
        assert killed.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.05)
    children = psutil.Process(killed.pid).children(recursive=True)
    killed.send_signal(signal.SIGKILL)
    killed.wait()
    _, alive = psutil.wait_procs(children, timeout=20)
    assert not alive  # services die with the program that started them
    document, remarks = finish(start(tmp_path, *options))
    assert "1 results are there, 3 are to be made" in remarks
    assert not list(tmp_path.glob("cluster/*/federation"))
    private, asked = (
        next(row for row in document["rows"] if row["id"] == name)
        for name in ("private-8", "encrypted-private-8")
    )
    assert asked["seeds"][0]["largest_logit_difference"] < 0.02
    assert asked["cost"]["epsilon"] == private["cost"]["epsilon"]
