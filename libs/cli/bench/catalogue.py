"""`trefoil bench catalogue`: how long a search takes, with many data sets on many nodes."""

from __future__ import annotations

import asyncio
import hashlib
import json
import math
import random
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.options import JsonOption

if TYPE_CHECKING:
    from libs.cli.client.session import Session
    from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2

TAGS = ("chest", "pneumonia", "children", "adults", "portable", "digital", "film", "screening", "trauma")
SITES = 50
_START_TIMEOUT_S = 60.0
_FILL_TIMEOUT_S = 600.0
_WARM_UP = 20


def catalogue(
    datasets: Annotated[int, typer.Option(min=1, max=1_000_000, help="Data sets altogether.")] = 10_000,
    nodes: Annotated[int, typer.Option(min=1, max=1000, help="Hospitals that publish them.")] = 200,
    searches: Annotated[int, typer.Option(min=10, max=100_000, help="Searches by tags to time.")] = 500,
    page_size: Annotated[int, typer.Option(min=1, max=1000, help="Entries of a page.")] = 100,
    database: Annotated[
        str | None,
        typer.Option(help="An empty PostgreSQL database (postgresql+psycopg://...).", show_default="SQLite"),
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """A real coordinator; every node attaches with its own certificate, publishes and stays; then searches by
    tags over mTLS, one after the other, and walks through all pages.
    """
    from libs.cli.bench.machine import describe_machine
    from libs.cli.output import print_json, print_table, remarks

    console = remarks()
    console.print(f"Publishing {datasets} data sets of {nodes} nodes, then searching", style="dim")
    with tempfile.TemporaryDirectory(prefix="trefoil-bench-") as folder:
        measured = _measured(Path(folder), datasets, nodes, searches, page_size, database)
    kind = "SQLite" if database is None else database.partition(":")[0].partition("+")[0]
    report = {
        "datasets": datasets,
        "nodes": nodes,
        "page_size": page_size,
        "database": kind,
        **measured,
        "machine": describe_machine(),
    }
    if as_json:
        print_json(report)
        return
    rows = [(name, f"{report[name]:.1f}") for name in ("p50_ms", "p95_ms", "p99_ms", "pages_per_s", "fill_s")]
    title = f"{datasets} data sets, {nodes} nodes, {kind}: tag search, pages of {page_size}"
    print_table(["", ">"], rows, title=title, if_empty="")


def percentile(values: Sequence[float], percent: float) -> float:
    """The smallest value that at least so many percent of all do not exceed (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(len(ordered) * percent / 100) - 1)]


def made_up_dataset(number: int) -> coordinator_pb2.Dataset:
    """A description of the size that real ones have; its tags follow from its number."""
    from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2

    chosen = random.Random(number)  # noqa: S311 - nothing secret
    schema = {"classes": ["normal", "pneumonia"], "source": "folder", "text": "x" * 200}
    return coordinator_pb2.Dataset(
        name=f"radiographs-{number:06}",
        description="Frontal chest radiographs of one ward, read twice by radiologists. " * 2,
        tags=["x-ray", *chosen.sample(TAGS, 3), f"site-{number % SITES}"],
        modality="chest X-ray",
        images=chosen.randrange(50, 50_000),
        version=1,
        licence="For research within the federation.",
        content_hash=hashlib.sha256(str(number).encode()).hexdigest(),
        schema=json.dumps(schema, sort_keys=True, separators=(",", ":")).encode(),
        disclosed_counts={"normal": 40, "pneumonia": 10},
        disclosure=coordinator_pb2.COUNT_DISCLOSURE_ROUNDED,
    )


def tag_queries(count: int) -> Iterator[list[str]]:
    """What people search for: a tag that everything has, two and three that some have, one site's."""
    chosen = random.Random(0)  # noqa: S311 - nothing secret
    for number in range(count):
        site = f"site-{chosen.randrange(SITES)}"
        yield [
            ["x-ray"],
            ["x-ray", *chosen.sample(TAGS, 1)],
            chosen.sample(TAGS, 2),
            ["x-ray", *chosen.sample(TAGS, 3)],
            [chosen.choice(TAGS), site],
        ][number % 5]


def _measured(
    root: Path, datasets: int, nodes: int, searches: int, page_size: int, database: str | None
) -> dict[str, Any]:
    from libs.cli.local_cluster import layout

    names = layout.hospital_names(nodes)
    layout.make_identities(root, names)
    with _coordinator(root, names, database) as address:
        layout.write_profiles(root, names, dict.fromkeys([layout.COORDINATOR, *_folders(names)], address))
        return asyncio.run(_ask(root, names, address, datasets, searches, page_size))


def _folders(names: Sequence[str]) -> list[str]:
    return [f"hospital-{name}" for name in names]


@contextmanager
def _coordinator(root: Path, names: Sequence[str], database: str | None) -> Iterator[str]:
    """A coordinator alone: nothing that is asked here needs parties. Its address."""
    from libs.cli.local_cluster import layout
    from libs.cli.local_cluster.cluster import ProcessDied
    from libs.cli.local_cluster.health import wait_until_serving
    from libs.cli.local_cluster.ports import PortReservation
    from libs.cli.local_cluster.process import ServiceProcess
    from libs.cli.settings_files import coordinator_settings, to_toml
    from libs.rpc.identity import COORDINATOR, Identity, Kind

    with PortReservation() as ports:
        address, home = f"127.0.0.1:{ports.take()}", root / layout.COORDINATOR
        preapproved = [Identity(Kind.HOSPITAL, name).uri for name in names]
        settings = coordinator_settings(listen=address, parties=[address] * 3, preapproved=preapproved)
        settings |= {"log_level": "warning"} | ({} if database is None else {"database": database})
        (home / "settings.toml").write_text(to_toml(settings))
        process = ServiceProcess(
            name=layout.COORDINATOR,
            module="services.coordinator",
            config=home / "settings.toml",
            log=home / "log.jsonl",
            environment={},
        )

        def still_running() -> None:
            if not process.running:
                raise ProcessDied(f"The coordinator ended by itself:\n{process.tail()}")

        process.start()
        try:
            wait_until_serving(
                address=address,
                server=COORDINATOR,
                tls=layout.tls_files(root / "client-scientist"),
                timeout_s=_START_TIMEOUT_S,
                still_running=still_running,
            )
            yield address
        finally:
            process.stop(grace_s=5.0)


async def _ask(
    root: Path, names: Sequence[str], address: str, datasets: int, searches: int, page_size: int
) -> dict[str, Any]:
    from libs.cli.client.session import open_session

    async with open_session(root / "client-scientist" / "profile.toml") as session:
        started_s = time.perf_counter()
        async with _attached(root, names, address, datasets) as streams:
            await _until_published(session, datasets, streams)
            fill_s = time.perf_counter() - started_s
            times_s = [await _search(session, tags, page_size) for tags in tag_queries(_WARM_UP + searches)]
            found, pages, walk_s = await _walk(session, page_size)
    if found != datasets:
        raise RuntimeError(f"the pages hold {found} data sets, not {datasets}")
    timed_ms = [1000 * seconds for seconds in times_s[_WARM_UP:]]
    return {
        "searches": searches,
        "p50_ms": statistics.median(timed_ms),
        "p95_ms": percentile(timed_ms, 95),
        "p99_ms": percentile(timed_ms, 99),
        "pages": pages,
        "pages_per_s": pages / walk_s,
        "fill_s": fill_s,
    }


@asynccontextmanager
async def _attached(
    root: Path, names: Sequence[str], address: str, datasets: int
) -> AsyncIterator[list[asyncio.Task[None]]]:
    """Every node has a stream of its own, on which it publishes its part."""
    parts = [range(position, datasets, len(names)) for position in range(len(names))]
    streams = [
        asyncio.create_task(_attach(root, name, address, part))
        for name, part in zip(names, parts, strict=True)
    ]
    try:
        yield streams
    finally:
        for stream in streams:
            stream.cancel()
        await asyncio.gather(*streams, return_exceptions=True)


async def _attach(root: Path, name: str, address: str, numbers: Sequence[int]) -> None:
    from libs.cli.local_cluster import layout
    from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2
    from libs.rpc._generated.trefoil.coordinator.v1.coordinator_pb2_grpc import CoordinatorServiceStub
    from libs.rpc.channel import open_channel
    from libs.rpc.identity import COORDINATOR

    async def events() -> AsyncIterator[coordinator_pb2.HospitalEvent]:
        yield coordinator_pb2.HospitalEvent(hello=coordinator_pb2.HospitalHello(name=name, version="bench"))
        for number in numbers:
            yield coordinator_pb2.HospitalEvent(dataset_published=made_up_dataset(number))
        await asyncio.Event().wait()

    folder = root / f"hospital-{name}"
    async with open_channel(
        address=address,
        server=COORDINATOR,
        tls=layout.tls_files(folder),
        token_file=folder / "keys" / "worker.token",
    ) as channel:
        async for _ in CoordinatorServiceStub(channel).Attach(events()):
            pass


async def _until_published(session: Session, datasets: int, streams: Sequence[asyncio.Task[None]]) -> None:
    """Until everything is in the catalogue. Raises what ended a stream before."""
    from libs.cli.client.catalogue import describe_federation
    from libs.rpc.channel import translated

    async with asyncio.timeout(_FILL_TIMEOUT_S):
        while sum(node.datasets for node in (await describe_federation(session)).nodes) < datasets:
            ended, _ = await asyncio.wait(streams, timeout=0.5, return_when=asyncio.FIRST_COMPLETED)
            with translated():
                for stream in ended:
                    stream.result()


async def _search(session: Session, tags: Sequence[str], page_size: int) -> float:
    """Seconds for the first page."""
    from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2

    request = coordinator_pb2.SearchDatasetsRequest(tags=tags, page_size=page_size)
    started_s = time.perf_counter()
    await session.coordinator.SearchDatasets(request)
    return time.perf_counter() - started_s


async def _walk(session: Session, page_size: int) -> tuple[int, int, float]:
    """(entries, pages, seconds) of everything with the commonest tag."""
    from libs.rpc._generated.trefoil.coordinator.v1 import coordinator_pb2

    found: set[str] = set()
    pages, token, started_s = 0, "", time.perf_counter()
    while pages == 0 or token:
        request = coordinator_pb2.SearchDatasetsRequest(tags=["x-ray"], page_size=page_size, page_token=token)
        page = await session.coordinator.SearchDatasets(request)
        found.update(dataset.dataset_id for dataset in page.datasets)
        pages, token = pages + 1, page.next_page_token
    return len(found), pages, time.perf_counter() - started_s
