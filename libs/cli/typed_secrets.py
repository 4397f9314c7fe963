"""Passwords and codes: typed without an echo, or from a private file. Never an argument, which others see."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from libs.core.errors import InvalidInput
from libs.core.secret import Secret

PasswordFileOption = Annotated[
    Path | None,
    typer.Option("--password-file", help="File with the password, instead of asking.", show_default=False),
]
CodeFileOption = Annotated[
    Path | None,
    typer.Option("--code-file", help="File with the one-time code, instead of asking.", show_default=False),
]


def secret_from(file: Path | None, *, ask: str, twice: bool = False) -> Secret[str]:
    """The first line of the file, or what is typed at the prompt `ask`. InvalidInput for a bad file."""
    if file is None:
        return Secret(typer.prompt(ask, hide_input=True, confirmation_prompt=twice, err=True))
    from libs.runtime.private_files import require_private

    try:
        require_private(file)
        lines = file.read_text(encoding="utf-8").splitlines()
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"The file {file} cannot be read as text. Check its name and its rights."
        ) from error
    if not lines or not lines[0]:
        raise InvalidInput(f"The first line of {file} is empty.")
    return Secret(lines[0])
