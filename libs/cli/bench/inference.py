"""`trefoil bench inference`: encrypted predictions, as a client waits for them."""

from __future__ import annotations

from typing import Annotated

import typer

from libs.cli.bench.options import (
    BandwidthOption,
    LatencyOption,
    RepeatOption,
    ThreadsOption,
    WarmUpOption,
)
from libs.cli.options import JsonOption


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
    latency_ms: LatencyOption = 0.0,
    bandwidth_mbps: BandwidthOption = None,
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
    conditions = Conditions(repeat=repeat, warm_up=warm_up, threads=threads, link=link)
    workload = network_workload(model, size=pixels, channels=channels, batch=batch)
    measured = measure(workload, conditions, remarks())
    labels = {"model": model, "size": pixels, "channels": channels, "batch": batch}
    report = build_report(workload, measured, conditions, shares_only=False, **labels)
    title = f"{model}, {batch} x {channels} x {pixels} x {pixels}"
    show(report, title=title, as_json=as_json)
