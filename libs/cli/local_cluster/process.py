"""One service as a child process: started, watched, stopped with everything it started itself."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path

from libs.cli.local_cluster import tether

REPOSITORY = Path(__file__).resolve().parents[3]


class ServiceProcess:
    """`python -m MODULE --config CONFIG` in a process group of its own, with its log in a file."""

    def __init__(
        self, *, name: str, module: str, config: Path, log: Path, environment: Mapping[str, str]
    ) -> None:
        self.name, self.module, self.config, self.log = name, module, config, log
        self._environment = dict(environment)
        self._child: subprocess.Popen[bytes] | None = None

    @property
    def pid(self) -> int:
        """The operating system's number. Raises when it was never started."""
        if self._child is None:
            raise RuntimeError(f"{self.name} was not started")
        return self._child.pid

    def start(self) -> None:
        """Start it. The log is appended to, so that a restart keeps what went before."""
        command = [sys.executable, "-I", "-S", tether.__file__, str(os.getpid())]
        command += [sys.executable, "-m", self.module, "--config", str(self.config)]
        with self.log.open("ab") as log:
            self._child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                cwd=self.config.parent,
                env=os.environ | {"PYTHONPATH": str(REPOSITORY)} | self._environment,
                # A group of its own: Ctrl-C in the terminal reaches us alone, and we stop the services in
                # order.
                start_new_session=True,
            )

    def exit_code(self) -> int | None:
        """None while it runs (or before its start)."""
        return None if self._child is None else self._child.poll()

    @property
    def running(self) -> bool:
        """Whether it was started and has not ended."""
        return self._child is not None and self._child.poll() is None

    def ask_to_stop(self) -> None:
        """SIGTERM to the service, which then closes its links in an orderly way."""
        if self.running:
            os.kill(self.pid, signal.SIGTERM)

    def kill(self) -> None:
        """SIGKILL to the service and everything it started: what a power cut looks like from outside."""
        if self._child is not None:
            _signal_group(self._child.pid, signal.SIGKILL)
            self._child.wait()

    def wait(self, timeout_s: float) -> bool:
        """Whether it ended within the time."""
        if self._child is None:
            return True
        try:
            self._child.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def stop(self, *, grace_s: float) -> None:
        """Ask, wait, then kill what is left of its group (a training worker, say)."""
        self.ask_to_stop()
        self.wait(grace_s)
        self.kill()

    def tail(self, lines: int = 15) -> str:
        """The end of its log."""
        if not self.log.exists():
            return "(it wrote no log)"
        with self.log.open("rb") as log:
            log.seek(max(0, self.log.stat().st_size - 16_384))
            text = log.read().decode(errors="replace")
        return "\n".join(text.splitlines()[-lines:]) or "(its log is empty)"


def _signal_group(leader: int, number: int) -> None:
    try:
        os.killpg(leader, number)
    except ProcessLookupError:
        return


def stop_all(processes: list[ServiceProcess], *, grace_s: float) -> None:
    """Stop several at once: all are asked first, so that the time given is spent once, not per process."""
    for process in processes:
        process.ask_to_stop()
    deadline = time.monotonic() + grace_s
    for process in processes:
        process.wait(max(0.0, deadline - time.monotonic()))
    for process in processes:
        process.kill()
