"""Messages between two processes over the transport of the services: gRPC streams, mutual TLS, loopback."""

from __future__ import annotations

import asyncio
import tempfile
import time
from pathlib import Path
from typing import Any

from libs.cli.bench.kernels import Primitive
from libs.cli.local_cluster import layout
from libs.cli.local_cluster.cluster import ProcessDied
from libs.cli.local_cluster.health import wait_until_serving
from libs.cli.local_cluster.ports import PortReservation
from libs.cli.local_cluster.process import ServiceProcess
from libs.cli.settings_files import party_settings, to_toml
from libs.core.ids import PartyId
from libs.rpc._generated.trefoil.party.v1 import party_pb2, party_pb2_grpc
from libs.rpc.channel import open_channel, translated
from libs.rpc.identity import party_identity
from libs.rpc.peer_frames import PART_BYTES

_PINGS = 100
_FRAMES = 64
_START_TIMEOUT_S = 60.0
_ECHO = PartyId(1)
_RPC_KEYS = ("listen", "tls", "token_secrets", "log_level")


def time_transport(*, repeat: int) -> list[Primitive]:
    """A round trip of an empty frame, and frames of the largest payload one after the other."""
    with tempfile.TemporaryDirectory(prefix="trefoil-bench-") as folder, PortReservation() as ports:
        root = Path(folder)
        layout.make_identities(root, ())
        address = f"127.0.0.1:{ports.take()}"
        home = root / layout.PARTY_NAMES[_ECHO]
        settings = party_settings(index=_ECHO, listen=address, parties=[address] * 3)
        config = home / "settings.toml"
        config.write_text(to_toml({key: settings[key] for key in _RPC_KEYS}))
        echo = ServiceProcess(
            name="echo", module="libs.cli.bench.echo", config=config, log=home / "log.jsonl", environment={}
        )
        echo.start()
        try:
            _wait(echo, address, root)
            return asyncio.run(_measure(address, root, repeat))
        finally:
            echo.stop(grace_s=5.0)


def _wait(echo: ServiceProcess, address: str, root: Path) -> None:
    def still_running() -> None:
        if not echo.running:
            raise ProcessDied(f"The echo service ended by itself:\n{echo.tail()}")

    wait_until_serving(
        address=address,
        server=party_identity(_ECHO),
        tls=layout.tls_files(root / "client-scientist"),
        timeout_s=_START_TIMEOUT_S,
        still_running=still_running,
    )


async def _measure(address: str, root: Path, repeat: int) -> list[Primitive]:
    channel = open_channel(
        address=address,
        server=party_identity(_ECHO),
        tls=layout.tls_files(root / layout.PARTY_NAMES[0]),
    )
    async with channel:
        with translated():
            stream: Any = party_pb2_grpc.PeerServiceStub(channel).Exchange()
            ping = party_pb2.PeerFrame(data=party_pb2.PeerData())
            full = party_pb2.PeerFrame(data=party_pb2.PeerData(payload=bytes(PART_BYTES)))
            trips = [await _exchange(stream, ping, count=1) for _ in range(_PINGS * repeat)]
            loads = [await _exchange(stream, full, count=_FRAMES) for _ in range(repeat + 1)]
            await stream.done_writing()
    return [
        Primitive("grpc_round_trip", trips[_PINGS // 2 :], 1, "round trip"),
        Primitive("grpc_stream", loads[1:], _FRAMES * PART_BYTES, "byte"),
    ]


async def _exchange(stream: Any, frame: party_pb2.PeerFrame, *, count: int) -> float:
    """Seconds to send a frame `count` times and have as many answers."""
    started_s = time.perf_counter()
    reading = asyncio.create_task(_read(stream, count))
    for _ in range(count):
        await stream.write(frame)
    await reading
    return time.perf_counter() - started_s


async def _read(stream: Any, count: int) -> None:
    for _ in range(count):
        await stream.read()
