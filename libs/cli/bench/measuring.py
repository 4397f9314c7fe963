"""Asks the same question again and again over a cluster of real processes, and keeps what each cost."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from libs.cli.bench.machine import memory_bytes
from libs.cli.bench.workload import Workload
from libs.cli.client.models import import_plan
from libs.cli.client.predictions import Prediction, predict
from libs.cli.client.session import Session, open_session
from libs.cli.local_cluster import LinkEmulation, LocalCluster
from libs.cli.local_cluster.layout import COORDINATOR, PARTY_NAMES, replica_name
from libs.cli.settings_files import Settings
from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
from libs.rpc._generated.trefoil.party.v1 import party_pb2, party_pb2_grpc

PLAINTEXT_THREADS = 2
_PLAINTEXT_REPEAT = 7
_PLAINTEXT_WARM_UP = 2
_DEADLINE_S = 900.0


@dataclass(frozen=True)
class Conditions:
    """How it is measured."""

    repeat: int
    warm_up: int
    threads: int = 1
    link: LinkEmulation | None = None
    pool: int = 0
    """Pieces of material that the parties make ahead; 0: each question is dealt while the client waits."""
    at_once: int = 1
    """Questions that are open at the same time."""
    cells: int = 1
    """Groups of three parties."""
    comparison: str = "auto"
    """How signs are found: the parties' setting."""


@dataclass(frozen=True)
class Measured:
    """What came out. `peak_memory_bytes`: of each party, resident, since it started."""

    predictions: list[Prediction]
    elapsed_s: float
    """Of all timed questions, waiting for material not counted."""
    cold_s: list[float]
    """Whole questions that were dealt while the client waited."""
    peak_memory_bytes: dict[int, int | None]
    memory_growth_bytes: dict[int, int | None]
    """What each party holds after the last question beyond what it held before the first timed one."""
    plaintext_s: list[float]


def measure(workload: Workload, conditions: Conditions, console: Console) -> Measured:
    """Start a cluster, ask, and stop it again. Raises what a question raises, and `ProcessDied`."""
    with tempfile.TemporaryDirectory(prefix="trefoil-bench-") as folder:
        console.print("Starting coordinator and three parties", style="dim")
        with LocalCluster(
            Path(folder),
            hospitals=(),
            overrides=_settings(workload, conditions),
            cells=conditions.cells,
            threads=conditions.threads,
            link=conditions.link,
        ) as cluster:
            return asyncio.run(cluster.guard(_measure(cluster, workload, conditions, console)))


async def _measure(
    cluster: LocalCluster, workload: Workload, conditions: Conditions, console: Console
) -> Measured:
    async with open_session(cluster.profile("scientist")) as scientist:
        console.print(f"Dealing {len(workload.parameters)} parameters to the parties", style="dim")
        model = await import_plan(
            scientist, name=f"bench {workload.name}", plan=workload.plan, parameters=workload.parameters
        )
        console.print(f"Asking {conditions.warm_up} + {conditions.repeat} times", style="dim")

        async def ask() -> Prediction:
            return await predict(scientist, model_id=model.model_id, images=workload.inputs)

        warm_up = [await ask() for _ in range(conditions.warm_up * conditions.cells)]
        before, elapsed_s = _resident(cluster), 0.0
        timed: list[Prediction] = []
        while len(timed) < conditions.repeat:
            if conditions.pool:
                await _wait_for_material(scientist, model.model_id, workload, conditions)
            started_s = time.perf_counter()
            count = min(conditions.at_once, conditions.repeat - len(timed))
            timed += await asyncio.gather(*(ask() for _ in range(count)))
            elapsed_s += time.perf_counter() - started_s
    after = _resident(cluster)
    return Measured(
        predictions=timed,
        elapsed_s=elapsed_s,
        cold_s=[p.latency_s for p in (warm_up + timed if conditions.pool else timed) if not p.dealt_ahead],
        peak_memory_bytes=_memory(cluster, "VmHWM"),
        memory_growth_bytes={party: _growth(before[party], now) for party, now in after.items()},
        plaintext_s=await asyncio.to_thread(time_plaintext, workload.plaintext),
    )


async def _wait_for_material(
    session: Session, model_id: str, workload: Workload, conditions: Conditions
) -> None:
    """Until every party, as dealer, has its part of the pool, so that no question meets the making of it."""
    wanted = _shelf_level(conditions)
    federation = await session.coordinator.DescribeFederation(coordinator_pb2.DescribeFederationRequest())
    request = party_pb2.DescribePoolRequest(model_id=model_id)
    for party, channel in session.party_channels(federation.parties).items():
        stub = party_pb2_grpc.PartyServiceStub(channel)
        while True:
            answer = await stub.DescribePool(request)
            shelves = (s for s in answer.shelves if (s.dealer, s.batch) == (party, workload.batch))
            if sum(shelf.ready for shelf in shelves) >= wanted:
                break
            await asyncio.sleep(0.05)


def _shelf_level(conditions: Conditions) -> int:
    """Each of the three dealers holds a third, rounded up."""
    return -(-conditions.pool // len(PARTY_NAMES))


def _settings(workload: Workload, conditions: Conditions) -> dict[str, Settings]:
    """Services that take any batch, and as long as it needs."""
    roomy: Settings = {"max_batch": max(64, workload.batch), "prediction_deadline_s": _DEADLINE_S}
    level = _shelf_level(conditions)
    party: Settings = {
        **roomy,
        "max_predictions_per_client": max(16, conditions.at_once),
        "comparison": conditions.comparison,
        "pool": {"low_watermark": level, "high_watermark": level, "batches": []},
    }
    parties = range(len(PARTY_NAMES))
    names = [replica_name(index, cell) for cell in range(conditions.cells) for index in parties]
    return {COORDINATOR: roomy, **dict.fromkeys(names, party)}


def time_plaintext(work: Callable[[], Any]) -> list[float]:
    """Seconds of each run in plain torch on this process's threads, after a warm-up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(PLAINTEXT_THREADS)
    try:
        times = []
        for _ in range(_PLAINTEXT_WARM_UP + _PLAINTEXT_REPEAT):
            started_s = time.perf_counter()
            work()
            times.append(time.perf_counter() - started_s)
    finally:
        torch.set_num_threads(threads)
    return times[_PLAINTEXT_WARM_UP:]


def _growth(before: int | None, after: int | None) -> int | None:
    return None if before is None or after is None else after - before


def _resident(cluster: LocalCluster) -> dict[int, int | None]:
    return _memory(cluster, "VmRSS")


def _memory(cluster: LocalCluster, field: str) -> dict[int, int | None]:
    pids = {index: cluster.process(name).pid for index, name in enumerate(PARTY_NAMES)}
    return {index: memory_bytes(pid, field) for index, pid in pids.items()}
