"""`trefoil bench relu`: many ReLUs at once, from shares to shares."""

from __future__ import annotations

from typing import Annotated

import typer

from libs.cli.bench.options import (
    BandwidthOption,
    BitsOption,
    LatencyOption,
    PoolOption,
    RepeatOption,
    RingBits,
    ThreadsOption,
    WarmUpOption,
)
from libs.cli.options import JsonOption


def relu(
    elements: Annotated[int, typer.Option(min=1, max=2**26 - 1, help="How many values.")] = 2**20,
    bits: BitsOption = RingBits.BITS_32,
    repeat: RepeatOption = 5,
    warm_up: WarmUpOption = 3,
    threads: ThreadsOption = 1,
    pool: PoolOption = 0,
    latency_ms: LatencyOption = 0.0,
    bandwidth_mbps: BandwidthOption = None,
    as_json: JsonOption = False,
) -> None:
    """ReLU of shared values with rescaling, as between two layers; the parties end with shares of it.

    online_s is what the evaluators report: opening the shares under masks, the comparison, the selection.
    The client is not part of it; it only brings the values and checks the result.
    """
    from libs.cli.bench.figures import build_report
    from libs.cli.bench.measuring import Conditions, measure
    from libs.cli.bench.operations import relu_workload
    from libs.cli.bench.show import show
    from libs.cli.local_cluster import LinkEmulation
    from libs.cli.output import remarks
    from libs.mpc.ring import Ring

    link = LinkEmulation.wanted(latency_ms=latency_ms, bandwidth_mbps=bandwidth_mbps)
    conditions = Conditions(repeat=repeat, warm_up=warm_up, threads=threads, link=link, pool=pool)
    workload = relu_workload(elements, ring=Ring(int(bits)))
    measured = measure(workload, conditions, remarks())
    report = build_report(workload, measured, conditions, shares_only=True, elements=elements)
    show(report, title=f"{elements:,} ReLUs, {bits} bits", as_json=as_json)
