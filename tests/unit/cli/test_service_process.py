"""Processes of a cluster: they end with their parent, and take their own children along."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from libs.cli.local_cluster import tether
from libs.cli.local_cluster.process import ServiceProcess

SERVICE = """
import pathlib, subprocess, sys, time
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(60)"])
pathlib.Path("child.pid").write_text(str(child.pid))
print("ready", flush=True)
time.sleep(60)
"""


def _gone(pid: int, *, within_s: float = 5.0) -> bool:
    deadline = time.monotonic() + within_s
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except FileNotFoundError:
            return True
        if state == "Z":
            return True
        time.sleep(0.02)
    return False


def _wait_for(path: Path, *, within_s: float = 10.0) -> str:
    deadline = time.monotonic() + within_s
    while not (path.exists() and path.read_text()):
        assert time.monotonic() < deadline, f"{path} never appeared"
        time.sleep(0.02)
    return path.read_text()


@pytest.fixture
def service(tmp_path: Path) -> ServiceProcess:
    (tmp_path / "fake_service.py").write_text(SERVICE)
    (tmp_path / "settings.toml").touch()
    return ServiceProcess(
        name="fake",
        module="fake_service",
        config=tmp_path / "settings.toml",
        log=tmp_path / "log.jsonl",
        environment={},
    )


def test_stopping_a_service_ends_what_it_started(service: ServiceProcess, tmp_path: Path) -> None:
    service.start()
    try:
        child = int(_wait_for(tmp_path / "child.pid"))
    finally:
        service.stop(grace_s=5)
    assert not service.running
    assert _gone(child)
    assert "ready" in service.tail()


def test_a_service_that_ends_by_itself_is_seen(service: ServiceProcess, tmp_path: Path) -> None:
    (tmp_path / "fake_service.py").write_text("raise SystemExit('the disk is full')")
    service.start()
    assert service.wait(10)
    assert service.exit_code() == 1
    assert "the disk is full" in service.tail()


@pytest.mark.skipif(sys.platform != "linux", reason="needs PR_SET_PDEATHSIG")
def test_a_tethered_process_ends_when_its_parent_is_killed(tmp_path: Path) -> None:
    parent_program = f"""
import os, subprocess, sys, time
command = [sys.executable, "-I", "-S", {tether.__file__!r}, str(os.getpid())]
command += [sys.executable, "-c", "import time; time.sleep(60)"]
child = subprocess.Popen(command, start_new_session=True)
time.sleep(0.5)
print(child.pid, flush=True)
time.sleep(60)
"""
    with subprocess.Popen(
        [sys.executable, "-c", parent_program], stdout=subprocess.PIPE, text=True
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        os.kill(parent.pid, signal.SIGKILL)
        parent.wait()
    assert _gone(child)
