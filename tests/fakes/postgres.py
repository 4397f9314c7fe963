"""A real PostgreSQL cluster on a free port, in a temporary folder, for as long as a test session runs."""

from __future__ import annotations

import os
import pwd
import secrets
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import sqlalchemy as sa

_START_S = 60.0


def binaries() -> Path | None:
    """Where `initdb` is, or None."""
    found = shutil.which("initdb")
    folders = [Path(found).parent] if found else sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return next((folder for folder in reversed(folders) if (folder / "initdb").exists()), None)


@contextmanager
def postgres_cluster() -> Iterator[str]:
    """A cluster; its URL without a database. Skips where PostgreSQL is not installed."""
    folder = binaries()
    if folder is None:
        pytest.skip("PostgreSQL is not installed. On Debian: apt-get install postgresql")
    with tempfile.TemporaryDirectory(prefix="trefoil-postgres-") as place:
        data, as_user = Path(place) / "data", _unprivileged(Path(place))
        run = subprocess.run(
            [*as_user, folder / "initdb", "-D", data, "-U", "trefoil", "-A", "trust", "--no-sync"],
            capture_output=True,
            check=False,
        )
        assert run.returncode == 0, run.stderr.decode()
        port = _free_port()
        settings = [f"port={port}", f"unix_socket_directories={place}", "fsync=off", "max_connections=200"]
        process = subprocess.Popen(
            [*as_user, folder / "postgres", "-D", data, *(word for one in settings for word in ("-c", one))],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        url = f"postgresql+psycopg://trefoil@127.0.0.1:{port}"
        try:
            _wait(url)
            yield url
        finally:
            process.send_signal(signal.SIGINT)  # at once; SIGTERM would wait for connections left open
            process.wait(timeout=30)


@contextmanager
def fresh_database(cluster: str, *, like: str | None = None) -> Iterator[str]:
    """A database of the cluster, empty or with what the one at the URL `like` holds; its URL.

    Nobody may be connected to `like` meanwhile.
    """
    name = f"test_{secrets.token_hex(6)}"
    template = "template1" if like is None else sa.make_url(like).database
    server = sa.create_engine(f"{cluster}/postgres", isolation_level="AUTOCOMMIT")
    with server.connect() as connection:
        connection.execute(sa.text(f"CREATE DATABASE {name} TEMPLATE {template}{_by_copying(server)}"))
    try:
        yield f"{cluster}/{name}"
    finally:
        with server.connect() as connection:
            connection.execute(sa.text(f"DROP DATABASE {name} WITH (FORCE)"))
        server.dispose()


def _by_copying(server: sa.Engine) -> str:
    """The way that takes a quarter of the time where nothing is synced. Before release 15 the only one."""
    version = server.dialect.server_version_info
    assert version is not None
    return " STRATEGY file_copy" if version >= (15,) else ""


def _unprivileged(place: Path) -> list[str]:
    """What goes before a command: PostgreSQL refuses to run as root."""
    if os.geteuid() != 0:
        return []
    user = next(name for name in ("postgres", "nobody") if _exists(name))
    account = pwd.getpwnam(user)
    os.chown(place, account.pw_uid, account.pw_gid)
    return ["setpriv", f"--reuid={account.pw_uid}", f"--regid={account.pw_gid}", "--clear-groups"]


def _exists(user: str) -> bool:
    try:
        pwd.getpwnam(user)
    except KeyError:
        return False
    return True


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait(url: str) -> None:
    engine, deadline = sa.create_engine(f"{url}/postgres"), time.monotonic() + _START_S
    while True:
        try:
            engine.connect().close()
        except sa.exc.OperationalError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.05)
        else:
            engine.dispose()
            return
