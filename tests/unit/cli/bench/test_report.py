"""From measurements to JSON, tables and the page, without any process."""

from __future__ import annotations

import json
import re
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.cli.bench.figures import build_report, drift, human_times, precise_seconds, report_rows, with_median
from libs.cli.bench.layers import COLUMNS, by_layer, costliest, in_all, layer_rows, profile_json
from libs.cli.bench.measuring import Conditions, Measured
from libs.cli.bench.operations import relu_workload
from libs.cli.bench.page import write_report
from libs.cli.bench.profile import StepProfile, profile
from libs.cli.bench.workload import Workload
from libs.cli.client.predictions import EvaluatorCost, Prediction
from libs.cli.local_cluster import LinkEmulation
from libs.mpc.ring import Ring
from libs.mpc.schemes.masked.comparison import Comparison

CONDITIONS = Conditions(repeat=2, warm_up=1, link=LinkEmulation(40.0, 100.0))
KEYS = {
    "online_s",
    "online_median_s",
    "offline_s",
    "offline_median_s",
    "opened_s",
    "total_cold_s",
    "total_cold_median_s",
    "rounds",
    "declared_rounds",
    "bytes_sent_by_party",
    "declared_bytes",
    "peak_memory_bytes_by_party",
    "max_abs_error",
    "max_abs_logit",
    "plaintext_s",
    "ratio_to_plaintext",
    "machine",
}


@pytest.fixture
def workload() -> Workload:
    return relu_workload(24, ring=Ring.RING_32)


def _prediction(workload: Workload, *, dealer: int, online_s: float) -> Prediction:
    cost = workload.declared(Comparison.NARROW)
    first, second = (
        EvaluatorCost(
            party=(dealer + place) % 3,
            rounds=cost.rounds,
            online_bytes=cost.online_bytes_each_way,
            online_s=online_s / 2 + place / 1000,
            offline_bytes=cost.dealt_bytes if place == 2 else 0,
            offline_s=0.01 * place,
            dealt_ahead=False,
            comparison=Comparison.NARROW,
        )
        for place in (1, 2)
    )
    return Prediction(
        computation_id="c",
        logits=workload.expected + 0.25,
        dealer=dealer,
        evaluators=(first, second),
        opened_s=0.1,
        prepared_s=0.2,
        masked_s=0.01,
        online_s=online_s,
        bytes_sent=10,
        bytes_received=10,
    )


def _measured(workload: Workload) -> Measured:
    predictions = [_prediction(workload, dealer=turn, online_s=0.5 + turn / 10) for turn in (1, 2)]
    return Measured(
        predictions=predictions,
        elapsed_s=4.0,
        cold_s=[p.latency_s for p in predictions],
        peak_memory_bytes={0: 5, 1: 7, 2: None},
        memory_growth_bytes={0: 0, 1: 1, 2: None},
        plaintext_s=[0.1, 0.3, 0.2],
    )


def _report(workload: Workload, **changes: Any) -> dict[str, Any]:
    measured = replace(_measured(workload), **changes)
    return build_report(workload, measured, CONDITIONS, shares_only=False, elements=24)


def test_drift_compares_the_last_tenth_with_the_first() -> None:
    assert drift([1.0] * 19) is None
    assert drift([1.0] * 90 + [1.5] * 10) == 1.5
    assert drift([2.0] * 10 + [1.0] * 90) == 0.5


def test_the_report_has_its_keys_and_is_json(workload: Workload) -> None:
    report = _report(workload)
    assert report.keys() >= KEYS
    assert json.loads(json.dumps(report)) == report
    assert report["link"] == {"latency_ms": 40.0, "bandwidth_mbps": 100.0}


def test_times_are_lists_with_their_medians(workload: Workload) -> None:
    report = _report(workload)
    assert report["online_s"] == [0.6, 0.7]
    assert report["online_median_s"] == pytest.approx(0.65)
    assert report["offline_s"] == [0.02, 0.02]
    assert report["total_cold_s"] == pytest.approx([0.91, 1.01])
    assert report["plaintext_s"] == 0.2
    assert report["ratio_to_plaintext"] == pytest.approx(3.25)
    assert with_median("wait_s", [3.0, 1.0, 2.0]) == {"wait_s": [3.0, 1.0, 2.0], "wait_median_s": 2.0}


def test_from_shares_to_shares_is_what_the_slower_evaluator_says(workload: Workload) -> None:
    report = build_report(workload, _measured(workload), CONDITIONS, shares_only=True)
    assert report["online_s"] == pytest.approx([0.302, 0.352])
    assert report["client_online_s"] == [0.6, 0.7]


def test_bytes_are_those_of_the_last_question_by_party(workload: Workload) -> None:
    report, cost = _report(workload), workload.declared(Comparison.NARROW)
    assert report["roles"] == {"dealer": 2, "first_evaluator": 0, "second_evaluator": 1}
    each = cost.online_bytes_each_way
    assert report["bytes_sent_by_party"] == {
        "online": {"0": each, "1": each, "2": 0},
        "offline": {"0": 0, "1": 0, "2": cost.dealt_bytes},
    }
    assert report["declared_bytes"] == report["bytes_sent_by_party"]
    assert report["costs_as_declared"] is True


@pytest.mark.parametrize("field", ["rounds", "online_bytes", "offline_bytes"])
def test_one_question_that_costs_more_than_declared_is_told(workload: Workload, field: str) -> None:
    first, last = _measured(workload).predictions
    one, other = first.evaluators
    dearer = replace(first, evaluators=(one, replace(other, **{field: getattr(other, field) + 1})))
    report = _report(workload, predictions=[dearer, last])
    assert report["costs_as_declared"] is False
    assert any("DECLARED" in value for _, value in report_rows(report))


def test_the_largest_error_is_over_all_questions(workload: Workload) -> None:
    first, last = _measured(workload).predictions
    worse = replace(first, logits=np.array(workload.expected) - 0.75)
    assert _report(workload, predictions=[worse, last])["max_abs_error"] == pytest.approx(0.75)


def test_memory_that_is_not_known_is_null(workload: Workload) -> None:
    assert _report(workload)["peak_memory_bytes_by_party"] == {"0": 5, "1": 7, "2": None}
    unknown = _report(workload, peak_memory_bytes={0: None, 1: None, 2: None})
    assert ("memory of a party, at most", "not known here") in report_rows(unknown)


def test_seconds_are_shown_to_three_digits() -> None:
    assert [precise_seconds(s) for s in (0.000123, 0.1904, 4.268)] == ["0.123 ms", "190 ms", "4.27 s"]
    assert human_times([0.2]) == "200 ms"
    assert human_times([0.1, 0.3, 0.2]) == "200 ms  (100 ms to 300 ms)"


# ------------------------------------------------------------ profile


def _step(name: str, kind: str, online_s: float) -> StepProfile:
    return StepProfile(name, kind, 0.1, 0.2, online_s, rounds=1, online_bytes=10, dealt_bytes=20)


STEPS = [
    _step("x", "input", 0.0),
    _step("conv", "conv2d", 4.0),
    _step("conv.open", "open", 1.0),
    _step("relu", "relu", 3.0),
    _step("relu.lift", "lift", 0.5),
]


def test_steps_are_added_up_by_layer_and_by_what_they_do() -> None:
    layers = by_layer(STEPS)
    assert [layer.name for layer in layers] == ["x", "conv", "relu"]
    conv = layers[1]
    assert conv.online_s_by_group == {"products": 4.0, "ReLU": 0.0, "openings": 1.0, "the rest": 0.0}
    assert (conv.online_s, conv.rounds, conv.online_bytes, conv.dealt_bytes) == (5.0, 2, 20, 40)


def test_layers_that_take_little_share_a_row_and_nothing_is_lost() -> None:
    layers = by_layer(STEPS)
    shown = costliest(layers, count=1)
    assert [layer.name for layer in shown] == ["conv", "2 other layers"]
    assert in_all(shown, name="all") == in_all(layers, name="all")
    assert costliest(layers, count=3) == layers
    assert all(len(row) == len(COLUMNS) for row in layer_rows(shown))


def test_the_profile_has_every_step_and_adds_up_to_the_declared_cost(workload: Workload) -> None:
    steps = profile(workload, threads=1)
    assert [step.name for step in steps] == [step.name for step in workload.plan.steps]
    total, cost = in_all(by_layer(steps), name="all"), workload.declared(Comparison.NARROW)
    assert (total.rounds, total.online_bytes, total.dealt_bytes) == (
        cost.rounds,
        cost.online_bytes_each_way,
        cost.dealt_bytes,
    )
    relu = next(step for step in steps if step.kind == "relu")
    assert min(relu.deal_s, relu.prepare_s, relu.online_s) > 0


def test_the_page_stands_alone_and_escapes_what_it_is_told(workload: Workload, tmp_path: Path) -> None:
    report = _report(workload) | {"command": "trefoil bench <script>"}
    page = write_report(tmp_path / "report", report, STEPS, title="a <b>")
    text = page.read_text()
    assert "&lt;script&gt;" in text
    assert "<script" not in text
    assert "a &lt;b&gt;" in text
    assert not re.search(r"(src|href)=\"(?!#)|url\((?!#)|@import", text)
    written = json.loads((page.parent / "profile.json").read_text())
    assert written["profile"] == profile_json(STEPS)
    assert (page.parent / "profile.svg").read_text().startswith("<svg")
    assert (page.parent / "profile.png").read_bytes().startswith(b"\x89PNG")
