"""`trefoil bench matmul`: one matrix product with truncation, from shares to shares."""

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


def matmul(
    m: Annotated[int, typer.Option("--m", min=1, max=4096, help="Rows of X.")] = 512,
    n: Annotated[int, typer.Option("--n", min=1, max=2**20, help="Columns of W.")] = 512,
    k: Annotated[int, typer.Option("--k", min=1, max=2**20, help="Columns of X, rows of W.")] = 512,
    bits: BitsOption = RingBits.BITS_32,
    repeat: RepeatOption = 5,
    warm_up: WarmUpOption = 3,
    threads: ThreadsOption = 1,
    pool: PoolOption = 0,
    latency_ms: LatencyOption = 0.0,
    bandwidth_mbps: BandwidthOption = None,
    as_json: JsonOption = False,
) -> None:
    """X (m, k) times W (k, n) with fixed-point truncation; the parties end with shares of the product.

    online_s is what the evaluators report: opening the shares of X, the product, opening it for the
    truncation. W is masked once per choice of roles, before anything is timed, as a layer's weights are.
    """
    from libs.cli.bench.figures import build_report
    from libs.cli.bench.measuring import Conditions, measure
    from libs.cli.bench.operations import matmul_workload
    from libs.cli.bench.show import show
    from libs.cli.local_cluster import LinkEmulation
    from libs.cli.output import remarks
    from libs.mpc.ring import Ring

    link = LinkEmulation.wanted(latency_ms=latency_ms, bandwidth_mbps=bandwidth_mbps)
    conditions = Conditions(repeat=repeat, warm_up=warm_up, threads=threads, link=link, pool=pool)
    workload = matmul_workload(m, n, k, ring=Ring(int(bits)))
    measured = measure(workload, conditions, remarks())
    report = build_report(workload, measured, conditions, shares_only=True, m=m, n=n, k=k)
    show(report, title=f"({m} x {k}) times ({k} x {n}), {bits} bits", as_json=as_json)
