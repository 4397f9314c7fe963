"""The command line as a person and a shell see it."""

from __future__ import annotations

import subprocess
import sys
import tomllib

import pytest
from typer.testing import CliRunner

from libs.cli.main import app

NOUNS = ("keys", "coordinator", "hospital", "party", "dataset", "study", "model", "predict", "demo", "bench")
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


def test_help_loads_no_heavy_library() -> None:
    program = f"import sys, libs.cli.main; print([name for name in {HEAVY} if name in sys.modules])"
    shown = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert shown.stdout.strip() == "[]"


def test_a_missing_profile_is_told_with_the_option_to_give() -> None:
    result = _trefoil("study", "list", "--profile", "nowhere.toml")
    assert result.returncode == 2
    assert "nowhere.toml" in result.stderr
    assert "Traceback" not in result.stderr


def test_a_missing_settings_file_says_how_to_write_one() -> None:
    result = _trefoil("party", "serve", "--config", "nowhere.toml")
    assert result.returncode == 2
    assert "config" in result.stderr
    assert "Traceback" not in result.stderr


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
