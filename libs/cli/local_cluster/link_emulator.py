"""Slow links in user space: a process that passes bytes on between others, later and no faster than told.

It listens on one port per destination and opens a connection of its own for each that it accepts. Bytes pass
as they are: TLS goes through untouched, and identities are checked by certificate, not by address. The
first round trip of a connection, TCP's own handshake, is not delayed.
"""

from __future__ import annotations

import argparse
import asyncio
import selectors
import signal
import sys
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import AsyncExitStack
from pathlib import Path

from pydantic import Field

from libs.core.errors import TrefoilError
from libs.runtime.settings import ServiceSettings, load_settings

_BITS_PER_MEGABIT = 1_000_000
_SMALLEST_CHUNK, _LARGEST_CHUNK = 1_448, 256 * 1024
_CHUNK_S = 0.001
"""At a limited rate bytes travel in pieces of this duration, as they would in packets."""

_BUFFER_BYTES = 4 << 20
"""Held per direction beyond what is on its way; then the sender has to wait, as at a full router."""


class RouteSettings(ServiceSettings):
    """A port to listen on, and where what comes in there is meant to go; both "host:port"."""

    listen: str
    target: str


class EmulatorSettings(ServiceSettings):
    """`python -m libs.cli.local_cluster.link_emulator --config links.toml`"""

    latency_ms: float = Field(ge=0)
    bandwidth_mbps: float | None = Field(default=None, gt=0)
    routes: tuple[RouteSettings, ...]


class Line:
    """One direction of a link: when the last of some bytes arrives that are given to it now.

    They queue behind earlier ones at the line's rate (a token bucket without a burst), then travel.
    """

    def __init__(
        self, *, delay_s: float, bytes_per_s: float | None, buffer_bytes: int = _BUFFER_BYTES
    ) -> None:
        self.delay_s, self.bytes_per_s, self._buffer_bytes = delay_s, bytes_per_s, buffer_bytes
        self._free_at_s = float("-inf")

    def arrival_s(self, size: int, *, now_s: float) -> float:
        """Not before the arrival of what was given earlier, if `now_s` never goes back."""
        if self.bytes_per_s is None:
            return now_s + self.delay_s
        self._free_at_s = max(self._free_at_s, now_s) + size / self.bytes_per_s
        return self._free_at_s + self.delay_s

    @property
    def chunk_bytes(self) -> int:
        """How much to pass on at a time."""
        if self.bytes_per_s is None:
            return _LARGEST_CHUNK
        return min(_LARGEST_CHUNK, max(_SMALLEST_CHUNK, int(self.bytes_per_s * _CHUNK_S)))

    @property
    def capacity_bytes(self) -> int:
        """What may be on the line and in front of it."""
        return self._buffer_bytes + int((self.bytes_per_s or 0) * self.delay_s)


class _Pipe:
    """Moves one direction of one connection over a line, its end included."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        line: Line,
        *,
        on_taken: Callable[[int], None],
    ) -> None:
        self._reader, self._writer, self._line, self._on_taken = reader, writer, line, on_taken
        self._travelling: deque[tuple[float, bytes]] = deque()
        self._held_bytes = 0
        self._given, self._taken = asyncio.Event(), asyncio.Event()

    async def take(self) -> None:
        """From the sender onto the line, until the sender is done."""
        now_s = asyncio.get_running_loop().time
        data = b"x"
        while data:
            data = await self._reader.read(self._line.chunk_bytes)
            self._travelling.append((self._line.arrival_s(len(data), now_s=now_s()), data))
            self._held_bytes += len(data)
            self._on_taken(len(data))
            self._given.set()
            while self._held_bytes > self._line.capacity_bytes:
                self._taken.clear()
                await self._taken.wait()

    async def deliver(self) -> None:
        """From the line to the receiver. The empty piece is the end, which travels like the rest."""
        now_s = asyncio.get_running_loop().time
        while True:
            while not self._travelling:
                self._given.clear()
                await self._given.wait()
            arrival_s, data = self._travelling.popleft()
            if (wait_s := arrival_s - now_s()) > 0:
                await asyncio.sleep(wait_s)
            if not data:
                self._writer.write_eof()
                return
            self._writer.write(data)
            await self._writer.drain()
            self._held_bytes -= len(data)
            self._taken.set()


class Relay:
    """Listens for one destination. `new_line` makes a direction of a link for each connection."""

    def __init__(self, *, listen: str, target: str, new_line: Callable[[], Line]) -> None:
        self._listen, self._target, self._new_line = _split(listen), _split(target), new_line
        self._connections: set[asyncio.Task[None]] = set()
        self._server: asyncio.Server | None = None
        self.sent_bytes = self.received_bytes = 0
        """What callers put on the line, and what came towards them, whether or not it arrived."""

    async def __aenter__(self) -> Relay:
        host, port = self._listen
        self._server = await asyncio.start_server(self._accepted, host, port, limit=_LARGEST_CHUNK)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._server is not None:
            self._server.close()
        for connection in self._connections:
            connection.cancel()
        await asyncio.gather(*self._connections, return_exceptions=True)

    @property
    def port(self) -> int:
        """The port it listens on, once entered."""
        assert self._server is not None
        port: int = self._server.sockets[0].getsockname()[1]
        return port

    def cut(self) -> None:
        """Break every connection there is now; what is on its way is lost. New ones work."""
        for connection in self._connections:
            connection.cancel()

    def _count_sent(self, size: int) -> None:
        self.sent_bytes += size

    def _count_received(self, size: int) -> None:
        self.received_bytes += size

    def _accepted(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connection = asyncio.create_task(self._serve(reader, writer))
        self._connections.add(connection)
        connection.add_done_callback(self._connections.discard)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        """One connection, until both directions have ended or either side is gone."""
        onward: asyncio.StreamWriter | None = None
        try:
            back, onward = await asyncio.open_connection(*self._target, limit=_LARGEST_CHUNK)
            there = _Pipe(reader, onward, self._new_line(), on_taken=self._count_sent)
            here = _Pipe(back, writer, self._new_line(), on_taken=self._count_received)
            async with asyncio.TaskGroup() as group:
                for work in (there.take(), there.deliver(), here.take(), here.deliver()):
                    group.create_task(work)
        except* OSError:
            pass  # nobody listens there yet, or one side was cut off: the other is cut off as well
        finally:
            cut = (task := asyncio.current_task()) is not None and task.cancelling()
            for end in (writer, onward):
                if end is not None:
                    end.transport.abort() if cut else end.close()


def _split(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


async def emulate(settings: EmulatorSettings) -> None:
    """Relay for every route until SIGTERM or SIGINT."""
    rate = settings.bandwidth_mbps
    bytes_per_s = None if rate is None else rate * _BITS_PER_MEGABIT / 8
    stopped = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, stopped.set)
    async with AsyncExitStack() as relays:
        for route in settings.routes:
            relay = Relay(
                listen=route.listen,
                target=route.target,
                new_line=lambda: Line(delay_s=settings.latency_ms / 2000, bytes_per_s=bytes_per_s),
            )
            await relays.enter_async_context(relay)
        await stopped.wait()


def _exact_loop() -> asyncio.AbstractEventLoop:
    """select() waits to the microsecond, where epoll rounds every delay up to the millisecond."""
    return asyncio.SelectorEventLoop(selectors.SelectSelector())


def main(arguments: Sequence[str]) -> int:
    """`--config FILE`; the exit status."""
    parser = argparse.ArgumentParser(prog="link_emulator", description="Slow links between local processes.")
    parser.add_argument("--config", type=Path, required=True, help="settings file (TOML)")
    try:
        settings = load_settings(EmulatorSettings, parser.parse_args(arguments).config)
        with asyncio.Runner(loop_factory=_exact_loop) as runner:
            runner.run(emulate(settings))
    except (TrefoilError, OSError) as error:
        sys.stderr.write(f"link_emulator: {error}\n")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
