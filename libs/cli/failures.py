"""From an error to what a person or a script sees of it: plain words and an exit code, never a traceback.

| exit code | meaning |
| --- | --- |
| 0 | done |
| 1 | the answer is no: `trefoil audit verify` found something wrong |
| 2 | the request is wrong: an argument, a file, an unknown key, the wrong moment |
| 3 | not allowed: token, certificate or role |
| 4 | what was named does not exist |
| 5 | a service is down or too slow; the same command may work later |
| 6 | a server broke the protocol and the computation was aborted |
| 70 | Trefoil is wrong |
| 130 | stopped with Ctrl-C, or by answering no |
"""

from __future__ import annotations

import json
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any, Protocol, runtime_checkable

import typer

from libs.core.errors import (
    CallerError,
    NotFound,
    PeerViolation,
    PermissionDenied,
    TrefoilError,
    Unauthenticated,
    Unavailable,
)


@runtime_checkable
class WrongUsage(Protocol):
    """What Typer raises for arguments that do not parse. The class has moved between its versions."""

    ctx: Any

    def format_message(self) -> str:
        """What is wrong, without the usage."""
        ...


INTERRUPTED = 130
BUG = 70

# The first family that matches decides.
EXIT_CODES: tuple[tuple[type[TrefoilError], int], ...] = (
    (Unauthenticated, 3),
    (PermissionDenied, 3),
    (NotFound, 4),
    (CallerError, 2),
    (Unavailable, 5),
    (PeerViolation, 6),
    (TrefoilError, BUG),
)


def exit_code_of(error: BaseException) -> int:
    """The exit code in the table above."""
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return INTERRUPTED
    if isinstance(error, OSError | WrongUsage):
        return 2
    return next((code for family, code in EXIT_CODES if isinstance(error, family)), BUG)


def describe(error: BaseException) -> tuple[str, str]:
    """(stable code, public text) of an error."""
    if isinstance(error, TrefoilError):
        return error.code, str(error)
    if isinstance(error, KeyboardInterrupt | typer.Abort):
        return "interrupted", "Stopped."
    if isinstance(error, WrongUsage):
        return "usage", _usage_text(error)
    if isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        return "os_error", f"{where}{error.strerror or error or type(error).__name__}."
    text = (
        f"Trefoil failed in a way it should not ({type(error).__name__}). Set TREFOIL_DEBUG=1, run the "
        "command again, and report what it prints."
    )
    return "internal", text


def _usage_text(error: WrongUsage) -> str:
    command = error.ctx.command_path if error.ctx is not None else "trefoil"
    # Without arguments, a noun has printed its help already and has nothing to add.
    problem = error.format_message().rstrip(".") or "Name a command"
    return f"{problem}. See: {command} --help"


def run_and_exit(command: Callable[[], object], *, as_json: bool) -> None:
    """Run a command and leave the process with its exit code. Errors go to stderr, as JSON for machines.

    `command` gives None, or the exit code with which Typer was told to end (Ctrl-C, --help, typer.Exit).
    """
    try:
        code = command()
        if code == INTERRUPTED:
            raise KeyboardInterrupt
        if isinstance(code, int) and code:
            sys.exit(code)
    except (Exception, KeyboardInterrupt) as error:
        if os.environ.get("TREFOIL_DEBUG") == "1":
            traceback.print_exc()
        code, text = describe(error)
        message = json.dumps({"error": {"code": code, "message": text}}) if as_json else f"trefoil: {text}"
        print(message, file=sys.stderr)
        sys.exit(exit_code_of(error))
