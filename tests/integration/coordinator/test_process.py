"""The coordinator as it is run: a process with a settings file."""

from __future__ import annotations

import asyncio
import os
import signal
import socket
import sys
from pathlib import Path

from libs.cli.settings_files import coordinator_settings, to_toml
from tests.fakes.federation import eventually

PARTIES = ["127.0.0.1:7100", "127.0.0.1:7101", "127.0.0.1:7102"]


async def start(keys: Path, folder: Path, *, listen: str) -> asyncio.subprocess.Process:
    file = folder / "coordinator.toml"
    settings = coordinator_settings(listen=listen, parties=PARTIES, keys=str(keys / "coordinator"))
    file.write_text(to_toml(settings))
    return await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "services.coordinator", "--config", str(file)),
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path.cwd())},
    )


def catches(proc: Path, number: int) -> bool:
    """Whether the process has a handler for this signal yet."""
    caught = next(line for line in (proc / "status").read_text().splitlines() if line.startswith("SigCgt"))
    return bool(int(caught.split()[1], 16) >> (number - 1) & 1)


async def test_it_starts_without_torch_and_stops_cleanly_when_told(keys: Path, tmp_path: Path) -> None:
    process = await start(keys, tmp_path, listen="127.0.0.1:0")
    assert process.stderr is not None
    async with asyncio.timeout(20):
        while b"server_started" not in await process.stderr.readline():
            assert process.returncode is None
        proc = Path(f"/proc/{process.pid}")
        await eventually(lambda: catches(proc, signal.SIGTERM))
        maps = await asyncio.to_thread((proc / "maps").read_text)
        process.send_signal(signal.SIGTERM)
        assert await process.wait() == 0
    assert "libtorch" not in maps
    assert (tmp_path / "coordinator.db").stat().st_mode & 0o077 == 0


async def test_a_taken_port_is_said_in_plain_words(keys: Path, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        process = await start(keys, tmp_path, listen=f"127.0.0.1:{taken.getsockname()[1]}")
        async with asyncio.timeout(20):
            _, errors = await process.communicate()
    assert process.returncode == 1
    assert b"another process has the port" in errors
