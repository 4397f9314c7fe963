"""From what was measured to the report: the JSON of every sub-command and the rows of its table."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterable
from statistics import median
from typing import Any

import numpy as np

from libs.cli.bench.machine import describe_machine
from libs.cli.bench.measuring import Conditions, Measured
from libs.cli.bench.workload import Workload
from libs.cli.client.predictions import EvaluatorCost, Prediction
from libs.cli.output import human_bytes
from libs.core.ids import PARTIES

Report = dict[str, Any]


def build_report(
    workload: Workload, measured: Measured, conditions: Conditions, *, shares_only: bool, **labels: Any
) -> Report:
    """Everything under the keys of the README. Lists hold one entry per timed question.

    `shares_only`: `online_s` is what the evaluators report, from the masked input to their shares of the
    result; else it is the client's wait. `labels` come first.
    """
    predictions = measured.predictions
    online = [evaluators_s(p) if shares_only else p.online_s for p in predictions]
    offline = list(map(offline_s, predictions))
    error = max(float(np.abs(p.logits - workload.expected).max()) for p in predictions)
    last = predictions[-1]
    sent, declared = sent_by_party(last), declared_by_party(workload, last)
    return {
        "command": " ".join(["trefoil", *sys.argv[1:]]),
        **labels,
        "ring_bits": workload.plan.ring.bits,
        "repeat": len(predictions),
        "warm_up": conditions.warm_up,
        "link": None if conditions.link is None else conditions.link.to_json(),
        **with_median("online_s", online),
        **with_median("offline_s", offline),
        **with_median("online_plus_offline_s", map(sum, zip(online, offline, strict=True))),
        **with_median("opened_s", (p.opened_s for p in predictions)),
        **with_median("prepared_s", (p.prepared_s for p in predictions)),
        **with_median("client_online_s", (p.online_s for p in predictions)),
        **with_median("evaluators_s", map(evaluators_s, predictions)),
        **with_median("total_s", (p.latency_s for p in predictions)),
        **with_median("total_cold_s", measured.cold_s),
        "at_once": conditions.at_once,
        "cells": conditions.cells,
        "throughput_per_s": round(len(predictions) * workload.batch / measured.elapsed_s, 3),
        "pool": conditions.pool,
        "dealt_ahead": sum(p.dealt_ahead for p in predictions),
        "rounds": max(cost.rounds for p in predictions for cost in p.evaluators),
        "declared_rounds": workload.declared(last.comparison).rounds,
        "comparisons": sorted({p.comparison.value for p in predictions}),
        "roles": roles_of(last),
        "bytes_sent_by_party": sent,
        "declared_bytes": declared,
        "bytes_sent_by_client": last.bytes_sent,
        "costs_as_declared": all(costs_as_declared(workload, p) for p in predictions),
        "peak_memory_bytes_by_party": {str(i): peak for i, peak in measured.peak_memory_bytes.items()},
        "memory_growth_bytes_by_party": {str(i): n for i, n in measured.memory_growth_bytes.items()},
        "drift": drift(online),
        "max_abs_error": error,
        "max_abs_logit": float(np.abs(workload.expected).max()),
        "plaintext_s": median(measured.plaintext_s),
        "ratio_to_plaintext": round(median(online) / median(measured.plaintext_s), 2),
        "machine": describe_machine(),
    }


def with_median(name: str, seconds: Iterable[float]) -> dict[str, Any]:
    """`<name>_s`: the list, and `<name>_median_s` beside it."""
    values = [round(value, 6) for value in seconds]
    middle = round(median(values), 6) if values else None
    return {name: values, f"{name.removesuffix('_s')}_median_s": middle}


def drift(seconds: list[float]) -> float | None:
    """The last tenth's median over the first tenth's; None for fewer than twenty questions."""
    tenth = len(seconds) // 10
    return round(median(seconds[-tenth:]) / median(seconds[:tenth]), 3) if tenth >= 2 else None


def evaluators_s(prediction: Prediction) -> float:
    """From the masked input to its share of the result, at the slower evaluator."""
    return max(cost.online_s for cost in prediction.evaluators)


def offline_s(prediction: Prediction) -> float:
    """Dealing and preparing, until the slower evaluator had its material."""
    return max(cost.offline_s for cost in prediction.evaluators)


def roles_of(prediction: Prediction) -> dict[str, int]:
    """Who did what in the question whose bytes are reported."""
    first, second = (cost.party for cost in prediction.evaluators)
    return {"dealer": prediction.dealer, "first_evaluator": first, "second_evaluator": second}


def sent_by_party(prediction: Prediction) -> dict[str, dict[str, int]]:
    """Bytes of arrays that each party sent to the others for one question, without framing and TLS."""
    dealt = max(cost.offline_bytes for cost in prediction.evaluators)
    return _by_party(prediction, dealt=dealt, online=lambda cost: cost.online_bytes)


def declared_by_party(workload: Workload, prediction: Prediction) -> dict[str, dict[str, int]]:
    """The same as the plan declares it."""
    cost = workload.declared(prediction.comparison)
    return _by_party(prediction, dealt=cost.dealt_bytes, online=lambda _: cost.online_bytes_each_way)


def costs_as_declared(workload: Workload, prediction: Prediction) -> bool:
    """Whether rounds and bytes of one question are exactly what the plan declares."""
    rounds = workload.declared(prediction.comparison).rounds
    return sent_by_party(prediction) == declared_by_party(workload, prediction) and all(
        cost.rounds == rounds for cost in prediction.evaluators
    )


def _by_party(
    prediction: Prediction, *, dealt: int, online: Callable[[EvaluatorCost], int]
) -> dict[str, dict[str, int]]:
    nothing = {str(party): 0 for party in PARTIES}
    return {
        "online": nothing | {str(cost.party): online(cost) for cost in prediction.evaluators},
        "offline": nothing | {str(prediction.dealer): dealt},
    }


def report_rows(report: Report) -> list[tuple[str, str]]:
    """The table that people see."""
    sent = report["bytes_sent_by_party"]
    times = (
        ("online", "online"),
        ("offline: dealt and prepared ahead", "offline"),
        ("online + offline", "online_plus_offline"),
        ("from asking to the answer", "total"),
        ("from asking to the answer, nothing dealt ahead", "total_cold"),
    )
    peaks = [peak for peak in report["peak_memory_bytes_by_party"].values() if peak is not None]
    agree = "as declared" if report["costs_as_declared"] else f"DECLARED {report['declared_rounds']}"
    return [
        *((text, human_times(report[f"{key}_s"])) for text, key in times if report[f"{key}_s"]),
        ("images a second", f"{report['throughput_per_s']:.3g}"),
        ("in clear, with torch on 2 threads", precise_seconds(report["plaintext_s"])),
        ("online, compared to that", f"{report['ratio_to_plaintext']:.1f} times"),
        ("rounds and bytes", f"{report['rounds']} rounds, {agree}"),
        ("comparison", " and ".join(report["comparisons"])),
        ("an evaluator sends online", human_bytes(max(sent["online"].values()))),
        ("the dealer sends ahead", human_bytes(max(sent["offline"].values()))),
        ("the client sends", human_bytes(report["bytes_sent_by_client"])),
        ("memory of a party, at most", human_bytes(max(peaks)) if peaks else "not known here"),
        ("largest error / largest value", f"{report['max_abs_error']:.5f} / {report['max_abs_logit']:.3f}"),
    ]


def human_times(seconds: list[float]) -> str:
    """Median and range."""
    if len(seconds) == 1:
        return precise_seconds(seconds[0])
    low, high = precise_seconds(min(seconds)), precise_seconds(max(seconds))
    return f"{precise_seconds(median(seconds))}  ({low} to {high})"


def precise_seconds(seconds: float) -> str:
    """0.01234 -> '12.3 ms', 0.000123 -> '0.123 ms', 2.345 -> '2.35 s'."""
    return f"{seconds:.3g} s" if seconds >= 1 else f"{seconds * 1000:.3g} ms"
