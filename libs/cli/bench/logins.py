"""`trefoil bench logins`: what logins to a hospital node take from its other calls."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Annotated, Any

import typer

from libs.cli.options import JsonOption

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.hospital.v1.accounts_pb2_grpc import AccountServiceAsyncStub

_NAME = "north"
_ACCOUNTS = 20
_PASSWORD = "violet harbour lantern"  # noqa: S105 - of made-up accounts that live for seconds
_OTHERS_EVERY_S = 0.05


@dataclass
class Timed:
    """Seconds of the calls that were answered, and the codes of those that were refused."""

    seconds: list[float] = field(default_factory=list)
    refused: list[str] = field(default_factory=list)


def logins(
    rate: Annotated[int, typer.Option(min=1, max=60_000, help="Logins a minute.")] = 1000,
    seconds: Annotated[int, typer.Option(min=1, max=3600, help="For so long, with and without them.")] = 30,
    as_json: JsonOption = False,
) -> None:
    """Start a node, log in at a fixed rate, and time another call meanwhile and without logins."""
    from libs.cli.bench.machine import describe_machine
    from libs.cli.local_cluster.lone_hospital import lone_hospital
    from libs.cli.output import print_json, print_table, remarks

    remarks().print("Starting a hospital node", style="dim")
    with TemporaryDirectory(prefix="trefoil-bench-") as folder, lone_hospital(Path(folder), _NAME) as address:
        measured = asyncio.run(_measure(Path(folder), address, rate=rate, seconds=seconds))
    alone, beside, logged_in = measured
    figures = {
        "other_calls_without_logins": _figures(alone),
        "other_calls_beside_logins": _figures(beside),
        "logins": _figures(logged_in),
    }
    if as_json:
        print_json({"logins_per_minute": rate, "seconds": seconds, **figures, "machine": describe_machine()})
        return
    rows = [
        [name.replace("_", " "), of["count"], of["p50_ms"], of["p95_ms"], of["refused"]]
        for name, of in figures.items()
    ]
    title = f"{rate} logins a minute for {seconds} s"
    print_table(["", ">calls", ">p50 ms", ">p95 ms", ">refused"], rows, title=title, if_empty="")


async def _measure(root: Path, address: str, *, rate: int, seconds: int) -> tuple[Timed, Timed, Timed]:
    """(other calls alone, other calls beside logins, the logins)."""
    from libs.cli.local_cluster import layout
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2 as pb
    from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2
    from libs.rpc._generated.trefoil.hospital.v1.accounts_pb2_grpc import AccountServiceStub
    from libs.rpc._generated.trefoil.hospital.v1.hospital_pb2_grpc import HospitalServiceStub
    from libs.rpc.channel import open_channel
    from libs.rpc.identity import Identity, Kind
    from libs.runtime.private_files import write_private

    home = root / f"client-staff-{_NAME}"
    token, server = home / "keys" / "hospital.token", Identity(Kind.HOSPITAL, _NAME)
    tls = layout.tls_files(home)
    staff = open_channel(address=address, server=server, tls=tls, token_file=token)
    people = open_channel(address=address, server=server, tls=tls)
    async with AsyncExitStack() as stack:
        await stack.enter_async_context(staff)
        await stack.enter_async_context(people)
        accounts, tokenless = AccountServiceStub(staff), AccountServiceStub(people)
        await _invite(accounts, tokenless)
        begun = await tokenless.LogIn(pb.LogInRequest(name="user0", password=_PASSWORD))
        write_private(home / "access.token", begun.tokens.access_token)
        user = open_channel(address=address, server=server, tls=tls, token_file=home / "access.token")
        hospital = HospitalServiceStub(await stack.enter_async_context(user))

        async def other(_number: int) -> None:
            await hospital.ListDatasets(hospital_pb2.ListDatasetsRequest())

        async def login(number: int) -> None:
            # Not user0: an account has so many sessions at most, and the other calls need theirs.
            name = f"user{1 + number % (_ACCOUNTS - 1)}"
            await tokenless.LogIn(pb.LogInRequest(name=name, password=_PASSWORD))

        await _paced(other, every_s=_OTHERS_EVERY_S, seconds=1)  # connections and caches
        alone = await _paced(other, every_s=_OTHERS_EVERY_S, seconds=seconds)
        beside, logged_in = await asyncio.gather(
            _paced(other, every_s=_OTHERS_EVERY_S, seconds=seconds),
            _paced(login, every_s=60 / rate, seconds=seconds),
        )
    return alone, beside, logged_in


async def _invite(accounts: AccountServiceAsyncStub, tokenless: AccountServiceAsyncStub) -> None:
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2 as pb

    for number in range(_ACCOUNTS):
        request = pb.InviteUserRequest(name=f"user{number}", roles=["scientist"])
        code = (await accounts.InviteUser(request)).invitation.code
        await tokenless.AcceptInvitation(pb.AcceptInvitationRequest(code=code, password=_PASSWORD))


async def _paced(call: Callable[[int], Awaitable[None]], *, every_s: float, seconds: float) -> Timed:
    """Begin a call every so often whether or not earlier ones were answered; a slow answer delays none."""
    timed, begun = Timed(), time.perf_counter()
    running: list[asyncio.Task[None]] = []
    number = 0
    while (due := begun + number * every_s) < begun + seconds:
        await asyncio.sleep(max(0.0, due - time.perf_counter()))
        running.append(asyncio.create_task(_one(call, number, timed)))
        number += 1
    await asyncio.gather(*running)
    return timed


async def _one(call: Callable[[int], Awaitable[None]], number: int, timed: Timed) -> None:
    import grpc

    from libs.rpc.channel import translate

    started_s = time.perf_counter()
    try:
        await call(number)
    except grpc.aio.AioRpcError as error:
        timed.refused.append(translate(error).code)
    else:
        timed.seconds.append(time.perf_counter() - started_s)


def _figures(timed: Timed) -> dict[str, Any]:
    """Counts and percentiles in milliseconds; None for what nothing was measured of."""
    ordered = sorted(timed.seconds)

    def percentile(part: float) -> float | None:
        return round(ordered[min(len(ordered) - 1, int(part * len(ordered)))] * 1000, 2) if ordered else None

    return {
        "count": len(ordered),
        "p50_ms": percentile(0.5),
        "p95_ms": percentile(0.95),
        "refused": len(timed.refused),
        "refused_codes": sorted(set(timed.refused)),
    }
