"""Staff at a shell, before a real node: from the code on its disk to logging out."""

from __future__ import annotations

import io
import json
import os
import stat
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stderr, redirect_stdout
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pyotp
import pytest

from libs.cli.local_cluster.lone_hospital import lone_hospital
from libs.cli.main import main
from libs.runtime.private_files import write_private
from tests.fakes.accounts import GOOD, OTHER

Run = subprocess.CompletedProcess


@contextmanager
def patched_environment(profile: Path) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TREFOIL_PROFILE", str(profile))
        yield


class Person:
    """A profile of their own, over the certificate of the staff's machine."""

    def __init__(self, root: Path, name: str, address: str) -> None:
        self.folder = root / "client-staff-north"
        self.profile = self.folder / f"{name}.toml"
        self.session = self.folder / f"{name}.session"
        self.profile.write_text(
            '[tls]\ncertificate = "keys/tls.crt"\nkey = "keys/tls.key"\nca = "keys/ca.crt"\n'
            f'[hospital]\nname = "north"\naddress = "{address}"\nsession = "{name}.session"\n'
        )

    def run(self, *arguments: str, password: str = GOOD) -> Run[str]:
        """In this process: an interpreter for each command would take most of the time."""
        command = [*arguments, *self._password(arguments, password)]
        out, err = io.StringIO(), io.StringIO()
        with patched_environment(self.profile), redirect_stdout(out), redirect_stderr(err):
            try:
                main(command)
                code = 0
            except SystemExit as left:
                code = int(left.code or 0)
        return Run(command, code, out.getvalue(), err.getvalue())

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        """As a shell does."""
        command = [sys.executable, "-m", "libs.cli.main", *arguments]
        environment = {**os.environ, "TREFOIL_PROFILE": str(self.profile)}
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
        return subprocess.Popen(command, text=True, env=environment, **pipes)

    def _password(self, arguments: tuple[str, ...], password: str) -> list[str]:
        asks = {("login",), ("user", "claim"), ("user", "accept"), ("user", "second-factor")}
        if not {arguments[:1], arguments[:2]} & asks or "--confirm" in arguments:
            return []
        file = self.folder / "password"
        write_private(file, password + "\n")
        return ["--password-file", str(file)]

    def done(self, *arguments: str, **options: str) -> Any:
        """What it prints as JSON, or as text."""
        ran = self.run(*arguments, **options)
        assert ran.returncode == 0, ran.stderr
        return json.loads(ran.stdout) if "--json" in arguments else ran.stdout

    def refused(self, *arguments: str, **options: str) -> str:
        """What it says when it is not allowed."""
        ran = self.run(*arguments, **options)
        assert ran.returncode == 3, (ran.returncode, ran.stderr)
        return ran.stderr


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    root = tmp_path_factory.mktemp("lone")
    with lone_hospital(root, "north") as address:
        yield root, address


def test_from_the_code_on_the_disk_to_logging_out(node: tuple[Path, str], tmp_path: Path) -> None:
    root, address = node
    olga, ben = Person(root, "olga", address), Person(root, "ben", address)
    assert "trefoil login" in olga.refused("user", "list")
    code_file = root / "hospital-north" / "accounts-north" / "owner.code"
    code = code_file.read_text().strip()
    assert code not in (root / "hospital-north" / "log.jsonl").read_text()
    olga.done("user", "claim", "olga", "--full-name", "Olga Owner", "--code-file", str(code_file))
    assert stat.S_IMODE(olga.session.stat().st_mode) == 0o600
    assert olga.done("user", "me", "--json")["roles"] == ["owner"]

    invite = ("user", "invite", "ben", "--role", "scientist", "--request-id", "invite-ben", "--json")
    first, again = olga.done(*invite), olga.done(*invite)
    assert (len(first["code"]), again["code"]) == (39, None)
    write_private(tmp_path / "code", first["code"])
    ben.done("user", "accept", "--code-file", str(tmp_path / "code"))
    assert "users.read" in ben.refused("user", "list")
    olga.done("role", "save", "reader", "--permission", "users.read")
    olga.done("group", "save", "office", "--role", "reader", "--member", "ben")
    assert [user["name"] for user in ben.done("user", "list", "--json")] == ["ben", "olga"]

    assert "wrong" in ben.refused("login", "--name", "ben", password=OTHER)
    ben.done("login", "--name", "ben")
    sessions = ben.done("session", "list", "--json")
    assert [one["current"] for one in sessions] == [False, True]
    ben.done("session", "end", sessions[0]["session_id"])
    olga.done("user", "disable", "ben")
    ben.refused("session", "list")
    assert "reader" in olga.done("role", "list")
    assert "office" in olga.done("group", "list")
    _a_second_factor(olga)
    _renewed_by_one_of_two(olga)
    olga.done("logout")
    assert not olga.session.exists()
    assert "trefoil login" in olga.refused("user", "me")
    _a_lost_password(root, olga)


def _a_second_factor(olga: Person) -> None:
    uri = olga.done("user", "second-factor", "--json")["provisioning_uri"]
    app = pyotp.parse_uri(uri)
    assert isinstance(app, pyotp.TOTP)
    olga.done("user", "second-factor", "--confirm", app.now())
    assert "second factor" in olga.refused("login", "--name", "olga")


def _renewed_by_one_of_two(olga: Person) -> None:
    """Two commands find an access token that is about to expire: one renews it, both work."""
    saved = json.loads(olga.session.read_text())
    old = saved["refresh_token"]
    saved["access_expires_at"] = datetime.now(UTC).isoformat()
    write_private(olga.session, json.dumps(saved))
    started = [olga.start("user", "me", "--json") for _ in range(2)]
    said = [process.communicate(timeout=60) for process in started]
    assert [process.returncode for process in started] == [0, 0], said
    assert json.loads(olga.session.read_text())["refresh_token"] != old


def _a_lost_password(root: Path, olga: Person) -> None:
    settings = root / "hospital-north" / "settings.toml"
    told, errors = olga.start("hospital", "owner-code", "--config", str(settings)).communicate(timeout=60)
    assert not errors
    code_file = root / "hospital-north" / "accounts-north" / "owner.code"
    assert str(code_file) in told
    assert code_file.read_text().strip() not in told
    olga.done("user", "accept", "--code-file", str(code_file), password=OTHER)
    assert olga.done("user", "me", "--json")["roles"] == ["owner"]
