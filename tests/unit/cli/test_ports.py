"""Ports of clusters that run beside each other."""

from __future__ import annotations

import random
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from libs.cli.local_cluster import ports
from libs.cli.local_cluster.ports import PortReservation, is_free


def test_two_reservations_never_share_a_port(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ports, "_FIRST", 20_100)
    monkeypatch.setattr(ports, "_LAST", 20_130)
    with PortReservation(tmp_path) as one, PortReservation(tmp_path) as other:
        taken = [reservation.take() for _ in range(8) for reservation in (one, other)]
    assert len(set(taken)) == len(taken)


def test_a_port_in_use_is_not_given_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.socket() as stranger, PortReservation(tmp_path) as reservation:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        used = stranger.getsockname()[1]
        draws = iter([used, used, used + 1])
        monkeypatch.setattr(random, "randint", lambda first, last: next(draws))
        assert not is_free(used)
        assert reservation.take() == used + 1


def test_a_process_that_is_killed_gives_its_ports_back(tmp_path: Path) -> None:
    program = (
        "import sys, pathlib; from libs.cli.local_cluster.ports import PortReservation\n"
        "r = PortReservation(pathlib.Path(sys.argv[1])); print(r.take(), flush=True); sys.stdin.read()"
    )
    with subprocess.Popen(
        [sys.executable, "-c", program, str(tmp_path)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as holder:
        assert holder.stdout is not None
        port = int(holder.stdout.readline())
        reservation = PortReservation(tmp_path)
        assert reservation._try_lock(port) is None
        holder.kill()
        holder.wait()
        lock = reservation._try_lock(port)
        assert lock is not None
        lock.close()
