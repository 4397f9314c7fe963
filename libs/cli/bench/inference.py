"""`trefoil bench inference`: encrypted predictions, as a client waits for them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from libs.cli.bench.options import (
    AtOnceOption,
    BandwidthOption,
    CellsOption,
    ComparisonChoice,
    ComparisonOption,
    LatencyOption,
    PoolOption,
    RepeatOption,
    ThreadsOption,
    WarmUpOption,
)
from libs.cli.options import JsonOption

if TYPE_CHECKING:
    from libs.cli.bench.figures import Report
    from libs.cli.bench.workload import Workload

_LISTED = 12
"""Layers in the terminal's table; the page has them all."""


def inference(
    model: Annotated[
        str, typer.Option(help="Network of the registry; an unknown one is answered with the list.")
    ] = "small_cnn",
    size: Annotated[
        int | None,
        typer.Option(min=8, max=1024, help="Pixels a side.", show_default="28 if it takes that, else 64"),
    ] = None,
    channels: Annotated[int, typer.Option(min=1, max=16, help="Channels of an image.")] = 1,
    batch: Annotated[int, typer.Option(min=1, max=4096, help="Images per question.")] = 1,
    repeat: RepeatOption = 5,
    warm_up: WarmUpOption = 3,
    threads: ThreadsOption = 1,
    pool: PoolOption = 0,
    at_once: AtOnceOption = 1,
    cells: CellsOption = 1,
    comparison: ComparisonOption = ComparisonChoice.AUTO,
    latency_ms: LatencyOption = 0.0,
    bandwidth_mbps: BandwidthOption = None,
    report: Annotated[bool, typer.Option("--report", help="Draw where time and bytes go, by layer.")] = False,
    report_to: Annotated[
        Path | None, typer.Option(help="Folder of the report.", show_default="runs/bench")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Encrypted predictions of made-up images: a client, a coordinator and three parties over mTLS.

    online_s is what the client waits for when material was dealt ahead: from sending the masked images to
    holding the logits. total_cold_s is the whole question with nothing dealt ahead.
    """
    from libs.cli.bench.figures import build_report
    from libs.cli.bench.measuring import Conditions, measure
    from libs.cli.bench.network import network_workload, usual_size
    from libs.cli.bench.show import show
    from libs.cli.local_cluster import LinkEmulation
    from libs.cli.output import remarks

    pixels = size or usual_size(model)
    link = LinkEmulation.wanted(latency_ms=latency_ms, bandwidth_mbps=bandwidth_mbps)
    conditions = Conditions(
        repeat=repeat,
        warm_up=warm_up,
        threads=threads,
        link=link,
        pool=pool,
        at_once=at_once,
        cells=cells,
        comparison=comparison.value,
    )
    workload = network_workload(model, size=pixels, channels=channels, batch=batch)
    measured = measure(workload, conditions, remarks())
    labels = {"model": model, "size": pixels, "channels": channels, "batch": batch}
    figures = build_report(workload, measured, conditions, shares_only=False, **labels)
    title = f"{model}, {batch} x {channels} x {pixels} x {pixels}"
    show(figures, title=title, as_json=as_json)
    if report or report_to is not None:
        _report(workload, figures, folder=report_to or Path("runs/bench"), title=title, threads=threads)


def _report(workload: Workload, figures: Report, *, folder: Path, title: str, threads: int) -> None:
    """Profile the same work in this process, print the layers that take longest, and write the page."""
    from libs.cli.bench.layers import COLUMNS, by_layer, costliest, in_all, layer_rows
    from libs.cli.bench.page import write_report
    from libs.cli.bench.profile import profile
    from libs.cli.output import make_table, remarks
    from libs.mpc.schemes.masked.comparison import Comparison

    console = remarks()
    console.print("Profiling the three programs, step by step", style="dim")
    steps = profile(workload, threads=threads, comparison=Comparison(figures["comparisons"][0]))
    layers = by_layer(steps)
    rows = layer_rows([*costliest(layers, count=_LISTED), in_all(layers, name="in all")])
    console.print(make_table(COLUMNS, rows, title="What each party computes, by layer"))
    page = write_report(folder, figures, steps, title=title)
    console.print(f"The report is in {page}")
