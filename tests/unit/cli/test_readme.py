"""The README names commands and options that exist. `tests/e2e/test_by_hand.py` runs its walk-through."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer

from libs.cli.main import app

README = Path(__file__).parents[3] / "README.md"
BLOCK = re.compile(r"```sh\n(.*?)```", re.DOTALL)
QUOTED = re.compile(r"`(trefoil [^`]+)`")
PARTIES = "127.0.0.1:1 127.0.0.1:2 127.0.0.1:3"


def commands() -> Iterator[str]:
    """Every command of Trefoil in blocks of the shell, and in the text."""
    text = README.read_text("utf-8")
    for block in BLOCK.findall(text):
        for line in block.replace("\\\n", " ").splitlines():
            found = re.search(r"\btrefoil (?!-- ).*", line.partition("  #")[0])
            if found:
                yield re.split(r" &| > |; done", found[0])[0].replace("$P", PARTIES)
    yield from (command for command in QUOTED.findall(text) if "SERVICE" not in command)


def parse(line: str) -> None:
    """Follow the nouns and verbs, and take the options apart; raises for what is not there. Runs nothing."""
    command: Any = typer.main.get_command(app)
    words = shlex.split(line)[1:]
    while words and not words[0].startswith("-") and hasattr(command, "commands"):
        command = command.commands[words.pop(0)]
    command.make_parser(command.context_class(command)).parse_args(words)


def test_there_are_many() -> None:
    assert len(set(commands())) > 40


@pytest.mark.parametrize("line", sorted(set(commands())))
def test_a_command_of_the_readme_exists_with_its_options(line: str) -> None:
    parse(line)


@pytest.mark.parametrize("line", ["trefoil study approve X", "trefoil request list --nope", "trefoil -x"])
def test_one_that_does_not_exist_would_be_noticed(line: str) -> None:
    with pytest.raises(Exception, match=r"approve|No such option"):
        parse(line)
