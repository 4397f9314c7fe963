"""`trefoil bench aggregate`: what secure aggregation adds to a training round."""

from __future__ import annotations

import statistics
from collections.abc import Iterable
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.bench.options import BandwidthOption, LatencyOption
from libs.cli.options import JsonOption

if TYPE_CHECKING:
    from libs.cli.bench.aggregation import Load, Measured

RESNET_18 = 11_000_000
_PROCESSES = 4
"""Of hospitals, at most: more than cores, for while one waits for a party's disk another computes."""
_MODES = {False: "without_check", True: "with_check"}


def aggregate(
    hospitals: Annotated[int, typer.Option(min=1, max=32, help="Hospitals of a round.")] = 3,
    parameters: Annotated[int, typer.Option(min=1, max=1 << 28, help="Elements of an update.")] = RESNET_18,
    check: Annotated[
        bool | None,
        typer.Option(
            help="Whether the norm of contributions is checked.", show_default="both, one after the other"
        ),
    ] = None,
    processes: Annotated[
        int | None,
        typer.Option(min=1, max=32, help="Processes that play the hospitals.", show_default="at most 4"),
    ] = None,
    repeat: Annotated[int, typer.Option(min=1, max=100, help="Timed rounds.")] = 3,
    warm_up: Annotated[int, typer.Option(min=0, max=100, help="Rounds before that.")] = 1,
    latency_ms: LatencyOption = 0.0,
    bandwidth_mbps: BandwidthOption = None,
    as_json: JsonOption = False,
) -> None:
    """Three party processes; hospitals that encode, split and upload made-up updates at the same time; and a
    coordinator's orders. From the first hospital's first step until all three parties stored the result.
    """
    from libs.cli.bench.aggregation import Load, measure
    from libs.cli.bench.machine import describe_machine
    from libs.cli.local_cluster import LinkEmulation
    from libs.cli.output import print_json, remarks

    remarks().print(f"Starting three parties and {hospitals} hospitals", style="dim")
    load = Load(
        hospitals=hospitals,
        parameters=parameters,
        processes=min(hospitals, processes or _PROCESSES),
        checks=(False, True) if check is None else (check,),
        repeat=repeat,
        warm_up=warm_up,
        link=LinkEmulation(latency_ms, bandwidth_mbps) if latency_ms or bandwidth_mbps else None,
    )
    measured = {_MODES[checked]: figures(load, each) for checked, each in measure(load).items()}
    report = {
        "hospitals": hospitals,
        "parameters": parameters,
        "hospital_processes": load.processes,
        **measured,
    }
    if check is None:
        without_s, with_s = (measured[mode]["round_s"] for mode in _MODES.values())
        report["check_adds_percent"] = round(100 * (with_s / without_s - 1), 1)
    report["machine"] = describe_machine()
    if as_json:
        print_json(report)
    else:
        _show(report)


def figures(load: Load, measured: Measured) -> dict[str, Any]:
    """Medians over the timed rounds; memory and error are the largest. Seconds and bytes."""
    rounds = measured.rounds
    plain_s = statistics.median(measured.plain_s)
    round_s = statistics.median(each.round_s for each in rounds)
    return {
        "round_s": round(round_s, 3),
        "rounds_s": [round(each.round_s, 3) for each in rounds],
        "plain_s": round(plain_s, 4),
        "added_s": round(round_s - plain_s, 3),
        "hospital_s": _median(value for each in rounds for value in each.hospital_s),
        "encode_s": _median(value for each in rounds for value in each.encode_s),
        "party_s": _median(each.party_s for each in rounds),
        "parties_steps_s": {
            name: _median(each.steps_s[name] for each in rounds) for name in rounds[0].steps_s
        },
        "party_cpu_s": [_median(each.party_cpu_s[party] for each in rounds) for party in range(3)],
        "hospitals_cpu_s": _median(each.hospitals_cpu_s for each in rounds),
        "bytes_up_per_hospital": max(value for each in rounds for value in each.bytes_up),
        "bytes_up_per_parameter": round(
            max(value for each in rounds for value in each.bytes_up) / load.parameters, 4
        ),
        "bytes_between_parties": max(each.bytes_between_parties for each in rounds),
        "peak_memory_bytes_by_party": {
            party: max((each.peak_memory_bytes[party] or 0 for each in rounds), default=0) or None
            for party in range(3)
        },
        "max_abs_error": measured.max_abs_error,
    }


def _median(values: Iterable[float]) -> float:
    return round(statistics.median(values), 3)


def _show(report: dict[str, Any]) -> None:
    from libs.cli.output import print_table

    modes = [mode for mode in _MODES.values() if mode in report]
    rows = [
        [key.replace("_", " "), *(_cell(report[mode][key]) for mode in modes)] for key in report[modes[0]]
    ]
    title = f"{report['hospitals']} hospitals x {report['parameters']} parameters"
    print_table(["", *(f">{mode.replace('_', ' ')}" for mode in modes)], rows, title=title, if_empty="")
    machine = report["machine"]
    print(f"{machine['cpu']}, {machine['cores']} cores, load {machine['load_average_1min']}")


def _cell(value: Any) -> str:
    if isinstance(value, dict):
        return ", ".join(f"{name} {part}" for name, part in value.items())
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return str(value)
