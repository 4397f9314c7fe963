"""`trefoil bench primitives`: what everything else is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.bench.options import RepeatOption, ThreadsOption
from libs.cli.options import JsonOption

if TYPE_CHECKING:
    from libs.cli.bench.kernels import Primitive

ROUNDS = 64


def primitives(
    repeat: RepeatOption = 5,
    threads: ThreadsOption = 1,
    services: Annotated[
        bool, typer.Option(help="Also a round between the evaluators' real services.")
    ] = True,
    as_json: JsonOption = False,
) -> None:
    """Masks, ring products, the ReLU's kernels, gRPC streams over mTLS, and a round of the real services.

    Each is timed alone; the kernels in this process, messages between two processes on this machine.
    """
    from libs.cli.bench.kernels import time_kernels
    from libs.cli.bench.machine import describe_machine
    from libs.cli.bench.transport import time_transport
    from libs.cli.output import print_json, print_table, remarks

    console = remarks()
    console.print("Timing kernels", style="dim")
    timed = list(time_kernels(repeat=repeat, threads=threads))
    console.print("Timing messages between two processes", style="dim")
    timed += time_transport(repeat=repeat)
    if services:
        timed.append(_service_round(repeat=repeat, threads=threads))
    if as_json:
        print_json(
            {
                "primitives": {primitive.name: primitive_json(primitive) for primitive in timed},
                "threads": threads,
                "machine": describe_machine(),
            }
        )
        return
    rows = [primitive_row(primitive) for primitive in timed]
    print_table(["", ">one run", ">"], rows, title=f"Medians, {threads} thread(s)", if_empty="")


def primitive_json(primitive: Primitive) -> dict[str, Any]:
    """Seconds of a run, what a run does, and the rate."""
    return {
        "median_s": primitive.median_s,
        "runs": len(primitive.seconds),
        "amount": primitive.amount,
        "unit": primitive.unit,
        "per_second": primitive.per_second,
        "ns_each": primitive.median_s / primitive.amount * 1e9,
    }


def primitive_row(primitive: Primitive) -> tuple[str, str, str]:
    """Name, time of a run, and the figure that people compare."""
    from libs.cli.bench.figures import precise_seconds
    from libs.cli.output import human_bytes

    ns_each = primitive.median_s / primitive.amount * 1e9
    rates = {
        "byte": f"{human_bytes(primitive.per_second)}/s",
        "product": f"{primitive.per_second / 1e9:.2f} G products/s",
        "value": f"{ns_each:.2f} ns a value",
    }
    return primitive.name, precise_seconds(primitive.median_s), rates.get(primitive.unit, "")


def _service_round(*, repeat: int, threads: int) -> Primitive:
    """A round in which the evaluators' services open a single value."""
    from libs.cli.bench.figures import evaluators_s
    from libs.cli.bench.kernels import Primitive
    from libs.cli.bench.measuring import Conditions, measure
    from libs.cli.bench.operations import rounds_workload
    from libs.cli.output import remarks

    workload = rounds_workload(ROUNDS)
    measured = measure(workload, Conditions(repeat=repeat, warm_up=3, threads=threads), remarks())
    rounds = workload.declared.rounds
    return Primitive("service_round", [evaluators_s(p) / rounds for p in measured.predictions], 1, "round")
