"""Health, reflection behind its setting, and a stop that loses nothing."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from libs.core.errors import PermissionDenied, Unavailable
from libs.rpc._generated.trefoil.party.v1 import party_pb2 as pb
from libs.rpc.channel import translated
from libs.rpc.identity import COORDINATOR, Identity
from libs.rpc.tokens import Role
from tests.fakes.rpc_rig import CLIENT, HOSPITAL, PARTY, PARTY_SERVICE, Rig

SERVING = health_pb2.HealthCheckResponse.SERVING
NOT_SERVING = health_pb2.HealthCheckResponse.NOT_SERVING


@pytest.mark.parametrize("identity", [COORDINATOR, PARTY, HOSPITAL, CLIENT])
async def test_every_certificate_of_the_federation_may_ask_for_health(rig: Rig, identity: Identity) -> None:
    await rig.serve()
    stub: Any = health_pb2_grpc.HealthStub(await rig.channel(identity))
    for service in ("", PARTY_SERVICE, "grpc.health.v1.Health"):
        answer = await stub.Check(health_pb2.HealthCheckRequest(service=service))
        assert answer.status == SERVING


async def test_a_graceful_stop_finishes_the_call_in_flight_and_takes_no_new_one(rig: Rig) -> None:
    await rig.serve()
    entered, leave = asyncio.Event(), asyncio.Event()

    async def wait(_request: Any, _context: Any) -> None:
        entered.set()
        await leave.wait()

    rig.party.on_call = wait
    stub = await rig.stub()
    in_flight = asyncio.ensure_future(stub.OpenRound(pb.OpenRoundRequest()))
    await entered.wait()
    assert rig.server is not None
    stopping = asyncio.create_task(rig.server.stop(grace_s=20))
    await asyncio.sleep(0.2)
    with pytest.raises(Unavailable), translated():
        await (await rig.stub()).OpenRound(pb.OpenRoundRequest(), timeout=5)
    leave.set()
    assert await in_flight == pb.OpenRoundResponse()
    await asyncio.wait_for(stopping, 15)  # the grace was not used up


async def test_a_call_that_outlives_the_grace_is_cancelled(rig: Rig) -> None:
    await rig.serve()
    entered, cancelled = asyncio.Event(), asyncio.Event()

    async def wait(_request: Any, _context: Any) -> None:
        entered.set()
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    rig.party.on_call = wait
    stub = await rig.stub()
    in_flight = asyncio.ensure_future(stub.OpenRound(pb.OpenRoundRequest()))
    await entered.wait()
    assert rig.server is not None
    await asyncio.wait_for(rig.server.stop(grace_s=0.1), 15)
    await asyncio.wait_for(cancelled.wait(), 15)
    with pytest.raises(Unavailable), translated():
        await in_flight


async def test_health_says_not_serving_and_closers_run_when_the_stop_begins(rig: Rig) -> None:
    await rig.serve()
    assert rig.server is not None
    seen: list[int] = []
    stub: Any = health_pb2_grpc.HealthStub(await rig.channel())
    watch = stub.Watch(health_pb2.HealthCheckRequest(service=PARTY_SERVICE))
    assert (await watch.read()).status == SERVING

    async def close() -> None:
        seen.append((await watch.read()).status)
        watch.cancel()

    rig.server.on_stop(close)
    await asyncio.wait_for(rig.server.stop(grace_s=20), 15)
    assert seen == [NOT_SERVING]


async def test_a_long_stream_ends_at_once_when_its_closer_ends_it(rig: Rig) -> None:
    await rig.serve()
    assert rig.server is not None
    ended = asyncio.Event()

    async def wait(_request: Any, _context: Any) -> None:
        await ended.wait()

    async def close() -> None:
        ended.set()

    rig.party.on_call = wait
    rig.server.on_stop(close)
    stub = await rig.stub(CLIENT, token=rig.token(Role.SCIENTIST))
    call = stub.GetShares(pb.GetSharesRequest())
    await call.read()
    await asyncio.wait_for(rig.server.stop(grace_s=20), 15)
    assert (await call.read()).chunk == b"second"


async def _services(rig: Rig) -> list[str]:
    channel = await rig.channel(CLIENT, token=rig.token(Role.OPERATOR))
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
        iter([reflection_pb2.ServerReflectionRequest(list_services="")])
    )
    answers = [answer async for answer in call]  # type: ignore[attr-defined]
    return [service.name for service in answers[0].list_services_response.service]


async def test_reflection_is_off_unless_the_settings_turn_it_on(rig: Rig) -> None:
    await rig.serve()
    with pytest.raises(PermissionDenied, match="does not offer"), translated():
        await _services(rig)


async def test_reflection_lists_the_services_for_operators_only(rig: Rig) -> None:
    await rig.serve(reflection=True)
    assert PARTY_SERVICE in await _services(rig)
    channel = await rig.channel(CLIENT, token=rig.token(Role.SCIENTIST))
    call = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(iter([]))
    with pytest.raises(grpc.aio.AioRpcError, match="role operator"):
        await call.read()  # type: ignore[attr-defined]


ROOT = str(Path(__file__).resolve().parents[3])
PROCESS = """
import asyncio, sys
from pathlib import Path
from libs.rpc.identity import TlsFiles
from libs.rpc.server import RpcServer
from libs.rpc.tokens import TokenVerifier

async def main():
    folder = Path(sys.argv[1])
    tls = TlsFiles(certificate=folder / "tls.crt", key=folder / "tls.key", ca=folder / "ca.crt")
    server = RpcServer(name="test", listen="127.0.0.1:0", tls=tls, tokens=TokenVerifier([]))
    print(await server.start(), flush=True)
    await server.serve_until_stopped()
    print("stopped", flush=True)

asyncio.run(main())
"""


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_stops_a_service_cleanly(rig: Rig, keys: Path, number: signal.Signals) -> None:
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROCESS,
        str(keys / "party-0"),
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": ROOT},
    )
    assert process.stdout is not None
    while not (line := await asyncio.wait_for(process.stdout.readline(), 30)).strip().isdigit():
        assert line, "the service ended before it served"
    rig.address = f"127.0.0.1:{int(line)}"
    stub: Any = health_pb2_grpc.HealthStub(await rig.channel())
    await stub.Check(health_pb2.HealthCheckRequest())
    began = time.monotonic()
    process.send_signal(number)
    output = await asyncio.wait_for(process.stdout.read(), 20)
    assert await process.wait() == 0
    assert b"stopped" in output
    assert time.monotonic() - began < 4
