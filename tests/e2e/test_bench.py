"""The bench as people run it: its own processes, JSON out, and costs as declared."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

pytestmark = pytest.mark.timeout(240)

SHORT = ("--repeat", "2", "--warm-up", "1")


def _bench(*arguments: str) -> Any:
    """The JSON that the command prints."""
    command = [sys.executable, "-m", "libs.cli.main", "bench", *arguments, "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=200)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def _check(report: dict[str, Any]) -> None:
    assert report["repeat"] == 2
    for name in ("online", "offline", "opened", "total_cold", "online_plus_offline"):
        assert len(report[f"{name}_s"]) == 2
        assert min(report[f"{name}_s"]) > 0
        assert report[f"{name}_median_s"] > 0
    assert report["rounds"] == report["declared_rounds"] > 0
    assert report["bytes_sent_by_party"] == report["declared_bytes"]
    assert report["costs_as_declared"] is True
    dealer = str(report["roles"]["dealer"])
    assert report["bytes_sent_by_party"]["online"][dealer] == 0
    assert report["bytes_sent_by_party"]["offline"][dealer] > 0
    assert all(peak > 0 for peak in report["peak_memory_bytes_by_party"].values())
    assert report["max_abs_error"] <= 0.02 * report["max_abs_logit"]
    assert report["plaintext_s"] > 0
    assert {"cpu", "cores", "torch", "numba"} <= report["machine"].keys()


def test_inference_is_measured_and_reported(tmp_path: Path) -> None:
    report = _bench("inference", "--model", "small_cnn", *SHORT, "--report-to", str(tmp_path / "report"))
    _check(report)
    assert (report["model"], report["size"], report["batch"], report["link"]) == ("small_cnn", 28, 1, None)
    assert (tmp_path / "report" / "index.html").exists()
    profiled = json.loads((tmp_path / "report" / "profile.json").read_text())["profile"]
    assert sum(step["rounds"] for step in profiled["steps"]) == report["rounds"]


@pytest.mark.slow
def test_relus_are_measured_over_emulated_links() -> None:
    report = _bench("relu", "--elements", "1000", *SHORT, "--latency-ms", "10", "--bandwidth-mbps", "50")
    _check(report)
    assert report["elements"] == 1000
    assert report["link"] == {"latency_ms": 10.0, "bandwidth_mbps": 50.0}
    # A round takes at least the way from one evaluator to the other.
    assert min(report["online_s"]) >= report["rounds"] * 0.005
    assert min(report["client_online_s"]) >= report["rounds"] * 0.005 + 0.01


@pytest.mark.slow
def test_a_matrix_product_is_measured() -> None:
    report = _bench("matmul", "--m", "8", "--n", "8", "--k", "8", *SHORT)
    _check(report)
    assert (report["m"], report["n"], report["k"]) == (8, 8, 8)


def test_aggregation_is_measured_with_and_without_the_check() -> None:
    report = _bench(
        "aggregate", "--hospitals", "2", "--parameters", "30000", "--repeat", "1", "--warm-up", "0"
    )
    assert (report["hospitals"], report["parameters"]) == (2, 30000)
    for mode in ("without_check", "with_check"):
        measured = report[mode]
        assert measured["round_s"] > measured["hospital_s"] > measured["encode_s"] >= 0
        assert measured["round_s"] > measured["party_s"] > 0
        assert measured["added_s"] == pytest.approx(measured["round_s"] - measured["plain_s"], abs=0.01)
        assert 4 * 30_000 < measured["bytes_up_per_hospital"] < 4 * 30_000 + 4000
        assert measured["bytes_between_parties"] > 0
        assert all(peak > 0 for peak in measured["peak_memory_bytes_by_party"].values())
        assert 0 < measured["max_abs_error"] <= 1e-5
        assert {"share_stored", "shares_added", "result_stored"} <= measured["parties_steps_s"].keys()
    assert "check_adds_percent" in report


def test_primitives_are_measured() -> None:
    report = _bench("primitives", "--repeat", "1", "--no-services")
    expected = {"prg", "ring_matmul_32", "ring_matmul_64", "ring_conv_32", "compare", "join", "select"}
    expected |= {"relu_deal", "relu_prepare", "relu_online", "grpc_round_trip", "grpc_stream"}
    assert expected <= report["primitives"].keys()
    assert all(entry["median_s"] > 0 and entry["per_second"] > 0 for entry in report["primitives"].values())


def test_an_unknown_network_is_refused_before_anything_starts() -> None:
    command = [sys.executable, "-m", "libs.cli.main", "bench", "inference", "--model", "nonsense"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert done.returncode == 2
    assert "small_cnn" in done.stderr
    assert "Starting" not in done.stderr
