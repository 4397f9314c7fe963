"""The command line as a person and a shell see it."""

from __future__ import annotations

import io
import json
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest
import typer
from typer.testing import CliRunner

from libs.cli.main import app, main
from libs.rpc._generated.trefoil.hospital.v1 import access_pb2, hospital_pb2

ROOT = Path(__file__).parents[3]
NOUNS = (
    "audit",
    "keys",
    "coordinator",
    "hospital",
    "user",
    "role",
    "group",
    "session",
    "login",
    "logout",
    "party",
    "node",
    "dataset",
    "request",
    "rule",
    "ledger",
    "statistics",
    "study",
    "model",
    "predict",
    "demo",
    "bench",
)
HEAVY = ("torch", "grpc", "numpy", "matplotlib", "sklearn", "pydantic", "cryptography", "sqlalchemy")


def _trefoil(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "libs.cli.main", *arguments]
    return subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)


def test_help_lists_every_noun() -> None:
    shown = CliRunner().invoke(app, ["--help"]).output
    for noun in NOUNS:
        assert f" {noun} " in shown


@pytest.mark.parametrize("noun", NOUNS)
def test_every_noun_has_help(noun: str) -> None:
    result = CliRunner().invoke(app, [noun, "--help"])
    assert result.exit_code == 0
    assert "Usage" in result.output


def _commands(command: Any, path: tuple[str, ...] = ()) -> Iterator[tuple[str, set[str]]]:
    """(words after `trefoil`, options) of every command that does something."""
    if not hasattr(command, "commands"):
        yield " ".join(path), {option for one in command.params for option in one.opts}
        return
    for name, inner in command.commands.items():
        yield from _commands(inner, (*path, name))


COMMANDS = dict(_commands(typer.main.get_command(app)))
PROSE_ONLY = {
    "logout",
    "user password",
    "keys init",
    "keys revoke",
    "hospital owner-code",
    *(
        f"{service} {verb}"
        for service in ("coordinator", "hospital", "party")
        for verb in ("serve", "config")
    ),
}


def test_every_command_has_json_for_machines_or_says_nothing_that_they_need() -> None:
    assert {name for name, options in COMMANDS.items() if "--json" not in options} == PROSE_ONLY


def test_every_command_that_a_text_names_exists() -> None:
    """In errors, hints and documents: `trefoil NOUN VERB` where the noun has verbs."""
    nouns = {name.split()[0] for name in COMMANDS if " " in name}
    named = re.compile(rf"trefoil ({'|'.join(sorted(nouns))}) ([a-z][a-z-]+)")
    files = [ROOT / "README.md", *ROOT.glob("libs/**/*.md"), *ROOT.glob("services/**/*.md")]
    files += [*ROOT.glob("libs/**/*.py"), *ROOT.glob("services/**/*.py")]
    unknown = {
        f"{file.relative_to(ROOT)}: {found[0]}"
        for file in files
        for found in named.finditer(file.read_text(encoding="utf-8"))
        if f"{found[1]} {found[2]}" not in COMMANDS
    }
    assert unknown == set()


def test_help_loads_no_heavy_library() -> None:
    program = f"import sys, libs.cli.main; print([name for name in {HEAVY} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_a_missing_profile_is_told_with_the_option_to_give() -> None:
    result = _trefoil("study", "list", "--profile", "nowhere.toml")
    assert result.returncode == 2
    assert "nowhere.toml" in result.stderr
    assert "Traceback" not in result.stderr


def test_keys_init_says_what_to_keep(tmp_path: Path) -> None:
    told = CliRunner().invoke(app, ["keys", "init", str(tmp_path / "keys")]).output
    assert str(tmp_path / "keys" / "ca") in told
    assert str(tmp_path / "keys" / "federation") in told


class _Staff:
    """A session whose hospital node remembers what it was asked to publish."""

    def __init__(self) -> None:
        self.published: list[hospital_pb2.PublishDatasetRequest] = []
        self.hospital = self

    async def PublishDataset(
        self,
        request: hospital_pb2.PublishDatasetRequest,
        *,
        timeout: float,  # noqa: ASYNC109 - as gRPC
    ) -> hospital_pb2.PublishDatasetResponse:
        self.published.append(request)
        return hospital_pb2.PublishDatasetResponse(dataset=hospital_pb2.Dataset(name=request.name))


@pytest.mark.parametrize("path", ["data/x-rays", "/data/x-rays"])
def test_publish_sends_an_absolute_path(path: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    staff = _Staff()
    monkeypatch.setattr("libs.cli.client.session.open_session", lambda profile: nullcontext(staff))
    monkeypatch.chdir(tmp_path)
    result = CliRunner().invoke(app, ["dataset", "publish", "x-rays", path, "--profile", "p.toml"])
    assert result.exit_code == 0, result.output
    assert staff.published[0].path == str(tmp_path / path)


def test_a_missing_weights_file_is_named(tmp_path: Path) -> None:
    missing = tmp_path / "nowhere.safetensors"
    result = _trefoil("model", "import", "mine", str(missing), str(tmp_path), "--profile", "nowhere.toml")
    assert result.returncode == 2
    assert f"There is no file {missing}" in result.stderr


def test_a_missing_settings_file_says_how_to_write_one() -> None:
    result = _trefoil("party", "serve", "--config", "nowhere.toml")
    assert result.returncode == 2
    assert "config" in result.stderr
    assert "Traceback" not in result.stderr


@pytest.mark.parametrize(
    ("arguments", "telling"),
    [
        (["nonsense"], "nonsense"),
        (["study", "create", "--bogus"], "--bogus"),
        (["predict", "--batch", "many", "a.png"], "--batch"),
        (["study", "show"], "STUDY"),
    ],
)
def test_wrong_usage_is_one_line_for_people_and_json_for_machines(
    arguments: list[str], telling: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for as_json in (False, True):
        with pytest.raises(SystemExit) as stopped:
            main([*arguments, *(["--json"] if as_json else [])])
        told = capsys.readouterr()
        assert (stopped.value.code, told.out) == (2, "")
        message = told.err
        if as_json:
            error = json.loads(told.err)["error"]
            assert error["code"] == "usage"
            message = error["message"]
        assert len(message.splitlines()) == 1
        assert telling in message
        assert "--help" in message


def test_answering_no_is_told_and_has_the_exit_code_of_stopping(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = access_pb2.AccessRequest(request_id="r", title="T", training_plan=b"{}", plan_hash="ab")
    monkeypatch.setattr("libs.cli.client.consent.get_request", lambda profile, request: asked)
    monkeypatch.setattr("sys.stdin", io.StringIO("n\n"))
    with pytest.raises(SystemExit) as stopped:
        main(["request", "approve", "r", "--profile", "profile.toml"])
    assert stopped.value.code == 130
    assert "Stopped" in capsys.readouterr().err


def test_ctrl_c_has_its_exit_code(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(profile: object, request: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("libs.cli.client.consent.get_request", interrupted)
    with pytest.raises(SystemExit) as stopped:
        main(["request", "approve", "r", "--profile", "profile.toml", "--json"])
    assert stopped.value.code == 130
    assert json.loads(capsys.readouterr().err)["error"]["code"] == "interrupted"


@pytest.mark.parametrize(
    "arguments",
    [
        ["coordinator", "config"],
        ["party", "config", "--index", "1"],
        ["hospital", "config", "--name", "north"],
    ],
)
def test_example_settings_are_toml(arguments: list[str]) -> None:
    result = CliRunner().invoke(app, arguments)
    assert result.exit_code == 0
    assert "listen" in tomllib.loads(result.output)
