"""`trefoil bench`: how fast it is on this machine, over real processes."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.options import JsonOption

if TYPE_CHECKING:
    from libs.cli.client.predictions import Prediction
    from libs.cli.local_cluster import LocalCluster

app = typer.Typer(help="Measure on this machine, over real processes.", no_args_is_help=True)


@app.callback()
def bench() -> None:
    """Measure on this machine, over real processes."""


@app.command()
def inference(
    model: Annotated[str, typer.Option(help="small_cnn, medium_cnn or resnet18.")] = "small_cnn",
    size: Annotated[
        int | None, typer.Option(min=8, max=1024, help="Pixels a side; 28 for small_cnn, else 64.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, max=256, help="Images per question.")] = 1,
    repeat: Annotated[int, typer.Option(min=1, max=10_000, help="Questions that are timed.")] = 20,
    warm_up: Annotated[int, typer.Option(min=0, help="Questions before those.")] = 3,
    as_json: JsonOption = False,
) -> None:
    """Encrypted predictions of made-up images, through coordinator and three parties over mTLS."""
    import asyncio

    from libs.cli.local_cluster import LocalCluster
    from libs.cli.output import print_json, remarks

    pixels = size or (28 if model == "small_cnn" else 64)
    console = remarks()
    with tempfile.TemporaryDirectory(prefix="trefoil-bench-") as folder:
        console.print("Starting coordinator and three parties", style="dim")
        with LocalCluster(Path(folder), hospitals=()) as cluster:
            console.print(f"Asking {warm_up} + {repeat} questions of {batch} image(s)", style="dim")
            asked = asyncio.run(
                cluster.guard(
                    _ask(cluster, model=model, size=pixels, batch=batch, repeat=repeat, warm_up=warm_up)
                )
            )
    report = _report(asked, model=model, size=pixels, batch=batch)
    if as_json:
        print_json(report)
    else:
        _print(report)


async def _ask(
    cluster: LocalCluster, *, model: str, size: int, batch: int, repeat: int, warm_up: int
) -> list[Prediction]:
    from libs.cli.client.models import import_model
    from libs.cli.client.predictions import predict
    from libs.cli.client.session import open_session
    from libs.data.phantom import make_phantoms
    from libs.data.transforms import to_model_input
    from libs.models.registry import build_model

    calibration = to_model_input(make_phantoms(max(64, batch), size=size, seed=0).images)
    images = calibration[:batch].numpy()
    module = build_model(model, channels=1, classes=2, size=size, seed=0)
    async with open_session(cluster.profile("scientist")) as scientist:
        imported = await import_model(scientist, name="bench", module=module, calibration=calibration)
        count = warm_up + repeat
        asked = [await predict(scientist, model_id=imported.model_id, images=images) for _ in range(count)]
    return asked[warm_up:]


def _report(asked: list[Prediction], *, model: str, size: int, batch: int) -> dict[str, Any]:
    """`online_s`: from the opened question to the logits; `offline_s`: dealing, ahead of the input."""
    import statistics

    first, second = asked[0].evaluators
    online = [round(prediction.answered_s, 5) for prediction in asked]
    return {
        "model": model,
        "size": size,
        "batch": batch,
        "repeat": len(asked),
        "online_s": online,
        "online_median_s": statistics.median(online),
        "opened_s": [round(prediction.opened_s, 5) for prediction in asked],
        "latency_median_s": round(statistics.median(prediction.latency_s for prediction in asked), 5),
        "evaluators_s": [round(max(e.online_s for e in p.evaluators), 5) for p in asked],
        "offline_s": [round(max(e.offline_s for e in p.evaluators), 5) for p in asked],
        "rounds": max(first.rounds, second.rounds),
        "bytes": {
            "client": asked[0].bytes_sent,
            "first_evaluator": first.online_bytes,
            "second_evaluator": second.online_bytes,
            "dealer": max(first.offline_bytes, second.offline_bytes),
        },
    }


def _print(report: dict[str, Any]) -> None:
    from libs.cli.output import human_bytes, human_seconds, print_table

    sent = report["bytes"]
    rows = [
        ("from asking to the answer, median", human_seconds(report["latency_median_s"])),
        ("of that online (after dealing ahead), median", human_seconds(report["online_median_s"])),
        ("online, best and worst", " / ".join(human_seconds(f(report["online_s"])) for f in (min, max))),
        ("rounds", str(report["rounds"])),
        ("each evaluator sends", human_bytes(sent["first_evaluator"])),
        ("dealt ahead", human_bytes(sent["dealer"])),
        ("the client sends", human_bytes(sent["client"])),
    ]
    side = report["size"]
    title = f"{report['model']}, {side}x{side}, {report['batch']} image(s), {report['repeat']} times"
    print_table(["", ">"], rows, title=title, if_empty="")
