"""Emulated links: never faster than asked, and nothing lost or changed. Only lower bounds are timed."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.cli.local_cluster.link_emulation import LinkEmulation
from libs.cli.local_cluster.link_emulator import EmulatorSettings, Line, Relay
from libs.cli.settings_files import to_toml
from libs.runtime.settings import load_settings

Handler = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]


async def _echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Everything back, and the end only once the client has ended its side."""
    while data := await reader.read(65_536):
        writer.write(data)
        await writer.drain()
    writer.write(b"<end>")
    writer.close()


@asynccontextmanager
async def _linked(
    handler: Handler, *, delay_s: float = 0.0, bytes_per_s: float | None = None
) -> AsyncIterator[tuple[asyncio.StreamReader, asyncio.StreamWriter]]:
    """A connection to `handler` through a relay."""
    server = await asyncio.start_server(handler, "127.0.0.1", 0)
    target = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
    relay = Relay(
        listen="127.0.0.1:0",
        target=target,
        new_line=lambda: Line(delay_s=delay_s, bytes_per_s=bytes_per_s),
    )
    async with server, relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        try:
            yield reader, writer
        finally:
            writer.close()


@given(
    given_at=st.lists(st.tuples(st.floats(0, 1), st.integers(0, 10**6)), min_size=1),
    delay_s=st.floats(0, 1),
    bytes_per_s=st.none() | st.floats(1e3, 1e9),
)
def test_a_line_keeps_order_delay_and_rate(
    given_at: list[tuple[float, int]], delay_s: float, bytes_per_s: float | None
) -> None:
    line = Line(delay_s=delay_s, bytes_per_s=bytes_per_s)
    now_s = latest_s = 0.0
    for wait_s, size in given_at:
        now_s += wait_s
        arrival_s = line.arrival_s(size, now_s=now_s)
        assert arrival_s >= latest_s
        assert arrival_s >= now_s + delay_s
        latest_s = arrival_s
    if bytes_per_s is not None:
        total = sum(size for _, size in given_at)
        first_s = given_at[0][0]
        assert latest_s - first_s >= (total / bytes_per_s + delay_s) * (1 - 1e-9) - 1e-9


@settings(deadline=None, max_examples=25)
@given(pieces=st.lists(st.binary(max_size=200_000), max_size=5), limited=st.booleans())
def test_bytes_arrive_unchanged_and_in_order(pieces: list[bytes], limited: bool) -> None:
    async def run() -> bytes:
        async with _linked(_echo, bytes_per_s=1e8 if limited else None) as (reader, writer):
            for piece in pieces:
                writer.write(piece)
            writer.write_eof()
            return await reader.read()

    assert asyncio.run(run()) == b"".join(pieces) + b"<end>"


async def test_a_round_trip_takes_at_least_the_latency() -> None:
    async with _linked(_echo, delay_s=0.02) as (reader, writer):
        for _ in range(3):
            started_s = time.perf_counter()
            writer.write(b"ping")
            await reader.readexactly(4)
            assert time.perf_counter() - started_s >= 0.04


async def test_bytes_are_no_faster_than_the_limit() -> None:
    async with _linked(_echo, bytes_per_s=2e6) as (reader, writer):
        started_s = time.perf_counter()
        writer.write(bytes(400_000))
        await reader.readexactly(400_000)
        assert time.perf_counter() - started_s >= 0.2


async def test_more_than_the_buffer_holds_gets_through() -> None:
    size = 24 << 20
    async with _linked(_echo, delay_s=0.001) as (reader, writer):

        async def send() -> None:
            writer.write(bytes(size))
            writer.write_eof()
            await writer.drain()

        sending = asyncio.create_task(send())
        received = await reader.readexactly(size)
        await sending
        assert not any(received)


async def test_one_side_may_end_while_the_other_goes_on() -> None:
    async def answer_after_the_end(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        question = await reader.read()
        writer.write(question[::-1])
        writer.close()

    async with _linked(answer_after_the_end, delay_s=0.005) as (reader, writer):
        writer.write(b"stressed")
        writer.write_eof()
        assert await reader.read() == b"desserts"


async def test_a_server_that_hangs_up_ends_the_clients_side() -> None:
    async def hang_up(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.transport.abort()

    async with _linked(hang_up) as (reader, _):
        with suppress(ConnectionResetError):
            assert await asyncio.wait_for(reader.read(), 10) == b""


async def test_a_destination_that_is_not_there_closes_the_connection() -> None:
    closed = await asyncio.start_server(_echo, "127.0.0.1", 0)
    target = f"127.0.0.1:{closed.sockets[0].getsockname()[1]}"
    closed.close()
    await closed.wait_closed()
    async with Relay(
        listen="127.0.0.1:0", target=target, new_line=lambda: Line(delay_s=0, bytes_per_s=None)
    ) as relay:
        reader, writer = await asyncio.open_connection("127.0.0.1", relay.port)
        assert await asyncio.wait_for(reader.read(), 10) == b""
        writer.close()


def test_the_clusters_wish_is_the_emulators_settings(tmp_path: Path) -> None:
    assert LinkEmulation.wanted(latency_ms=0, bandwidth_mbps=None) is None
    link = LinkEmulation.wanted(latency_ms=40, bandwidth_mbps=100)
    assert link is not None
    file = tmp_path / "settings.toml"
    file.write_text(to_toml(link.settings({"127.0.0.1:1": "127.0.0.1:2", "127.0.0.1:3": "127.0.0.1:4"})))
    loaded = load_settings(EmulatorSettings, file)
    assert (loaded.latency_ms, loaded.bandwidth_mbps) == (40, 100)
    assert [(route.listen, route.target) for route in loaded.routes] == [
        ("127.0.0.1:1", "127.0.0.1:2"),
        ("127.0.0.1:3", "127.0.0.1:4"),
    ]
    assert link.to_json() == {"latency_ms": 40, "bandwidth_mbps": 100}
    assert "bandwidth_mbps" not in LinkEmulation(5).settings({})


def test_a_limit_of_nothing_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="bandwidth"):
        EmulatorSettings.model_validate({"latency_ms": 1, "bandwidth_mbps": 0, "routes": []})
