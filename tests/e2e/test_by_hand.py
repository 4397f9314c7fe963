"""The walk-through of the README, taken from the README itself: every command as it stands there."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from PIL import Image

from libs.cli.local_cluster.ports import PortReservation
from libs.data.export import export_part
from libs.data.phantom import make_phantoms

pytestmark = pytest.mark.timeout(300)

ROOT = Path(__file__).parents[2]
BLOCK = re.compile(r"```(sh|toml)\n(.*?)```", re.DOTALL)
ADDRESSES = re.compile(r"127\.0\.0\.1:(74\d\d)")
SHELL = "/bin/bash"


class Reader:
    """Somebody who types what the README says, in an empty folder, on ports that are free."""

    def __init__(self, folder: Path, text: str) -> None:
        self.folder = folder
        self._environment = os.environ | {
            "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}",
            "PYTHONPATH": str(ROOT),
            "OMP_NUM_THREADS": "1",
        }
        section = text.partition("\n## By hand\n")[2].partition("\n## ")[0]
        self.blocks = BLOCK.findall(section)

    def types(self, script: str, *, answers: str = "") -> str:
        """What the script prints; it has to succeed, and so does every command in it."""
        done = subprocess.run(
            [SHELL, "-euc", script],
            cwd=self.folder,
            env=self._environment,
            input=answers,
            capture_output=True,
            text=True,
            timeout=120,
            check=False,
        )
        assert done.returncode == 0, f"{script}\n{done.stdout}\n{done.stderr}"
        return done.stdout

    def starts(self, script: str) -> subprocess.Popen[bytes]:
        """The script's processes go on, in a group of their own, until `ends`."""
        with (self.folder / "services.log").open("wb") as log:
            return subprocess.Popen(
                [SHELL, "-euc", f"{script}\nwait"],
                cwd=self.folder,
                env=self._environment,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def retries(self, command: str, *, timeout_s: float = 60.0) -> str:
        """For what takes a moment after the services were started."""
        deadline = time.monotonic() + timeout_s
        while True:
            try:
                return self.types(command)
            except AssertionError:
                if time.monotonic() > deadline:
                    log = (self.folder / "services.log").read_text("utf-8", errors="replace")
                    raise AssertionError(f"{command} never worked:\n{log[-3000:]}") from None
            time.sleep(0.5)


@pytest.fixture
def reader(tmp_path: Path) -> Iterator[Reader]:
    """Its services are stopped at the end, whatever happened."""
    text = (ROOT / "README.md").read_text("utf-8")
    with PortReservation() as ports:
        free = {number: ports.take() for number in sorted(set(ADDRESSES.findall(text)) | {"7411", "7412"})}
        # The three parties are also written 741$i.
        text = text.replace("127.0.0.1:741$i", "$(echo $P | cut -d' ' -f$((i + 1)))")
        text = ADDRESSES.sub(lambda found: f"127.0.0.1:{free[found[1]]}", text)
        text = text.replace("port 7421", f"port {free['7421']}")
        yield Reader(tmp_path, text)


@pytest.mark.slow
def test_the_walk_through_of_the_readme_works_as_it_stands(reader: Reader, tmp_path: Path) -> None:
    for seed, hospital in enumerate(("north", "east")):
        export_part(make_phantoms(40, size=28, seed=seed), tmp_path / "data" / hospital)
    keys, services, ada, staff, owner, study = (text for _, text in reader.blocks)
    assert [kind for kind, _ in reader.blocks] == ["sh", "sh", "toml", "toml", "sh", "sh"]
    configs, serve = services.split("\n\n")

    reader.types(keys.replace(". .venv/bin/activate\n", ""))
    reader.types(configs)
    write_profiles(tmp_path, ada, staff, east=listens(tmp_path / "east.toml"))
    running = reader.starts(serve)
    try:
        walk(reader, owner, study)
    finally:
        stop(running)


def listens(settings: Path) -> str:
    """The address in a settings file."""
    found = re.search(r'listen = "(.*?)"', settings.read_text("utf-8"))
    assert found is not None
    return found[1]


def write_profiles(folder: Path, ada: str, staff: str, *, east: str) -> None:
    """Those shown, and those that are like them."""
    for name, text in (("ada", ada), ("staff-north", staff)):
        assert text.startswith(f"# {name}.toml\n")
        (folder / f"{name}.toml").write_text(text)
    for name in ("clinic", "operator"):
        (folder / f"{name}.toml").write_text(ada.replace("client-ada", f"client-{name}"))
    text = re.sub(r'address = ".*?"', f'address = "{east}"', staff.replace("north", "east"))
    (folder / "staff-east.toml").write_text(text)


def walk(reader: Reader, owner: str, study: str) -> None:
    """From claiming the nodes to the ledger."""
    claim, status, approve, publish, budget = owner.strip().splitlines()
    for hospital in ("north", "east"):

        def here(command: str, hospital: str = hospital) -> str:
            return command.replace("north", hospital)

        (reader.folder / "password").write_text("violet harbour lantern\n")
        (reader.folder / "password").chmod(0o600)
        # Nobody types here, so the passwords come from a file.
        asked = here(claim).replace(" -p ", " --password-file password -p ")
        reader.retries(asked)
        key = wait_for_key(reader, here(status))
        reader.types(here(approve).replace("KEY", key))
        reader.types(here(publish))
        reader.types(here(budget))

    plan, listing, last = study.strip().split("\n\n")
    make_plan, search, *requests = re.split(r"\n(?=trefoil )", plan)
    reader.types(make_plan)
    wait_until(lambda: {"north", "east"} <= set(reader.types(search).split()))
    for request in requests:
        reader.types(request)
    for hospital in ("north", "east"):
        pending, allow = (line.replace("north", hospital) for line in listing.splitlines())
        wait_until(lambda pending=pending: "training" in reader.types(pending))
        (asked_for,) = as_json(reader, pending)
        reader.types(allow.replace("REQUEST", asked_for["request_id"]), answers="y\n")

    seen, create, watch, predict, ledger = last.splitlines()
    wait_until(lambda: reader.types(seen).count("approved") == 2)
    reader.types(create)
    (created,) = as_json(reader, "trefoil study list -p ada.toml")
    assert "Ready" in reader.types(watch.replace("STUDY", created["study_id"]))
    image = reader.folder / "image.png"
    Image.fromarray(make_phantoms(8, size=64, seed=9).images[0]).save(image)
    assert re.search("NORMAL|PNEUMONIA", reader.types(predict.replace("IMAGE", image.name)))
    assert "admitted" in reader.types(ledger)


def as_json(reader: Reader, command: str) -> list[dict[str, str]]:
    """The same command, for machines."""
    found: list[dict[str, str]] = json.loads(reader.types(command.partition("#")[0] + " --json"))
    return found


def wait_for_key(reader: Reader, status: str) -> str:
    """The SHA-256 that the node's status says once it asked to join."""
    keys: list[str] = []

    def said() -> bool:
        keys[:] = re.findall(r"[0-9a-f]{64}", reader.types(status).replace("\n", ""))
        return bool(keys)

    wait_until(said)
    return keys[0]


def wait_until(condition: Callable[[], bool], *, timeout_s: float = 60.0) -> None:
    """Commands return at once; what they began takes a moment."""
    deadline = time.monotonic() + timeout_s
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.3)


def stop(running: subprocess.Popen[bytes]) -> None:
    """Ctrl-C in the terminal of the services, and what is left after that."""
    for number in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(running.pid, number)
            running.wait(20)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
