"""Adding to a file of revocations, so that services which watch it see all of the change or none."""

from __future__ import annotations

import fcntl
import json
import os
import secrets
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path

from libs.core.errors import InvalidInput
from libs.rpc.token_checks.revocations import VERSION, Revoked, parse_revocations


def revoke_token(file: Path, *, issuer: str, token_id: str) -> bool:
    """Write that the token is worth nothing; False if the file said so before. Makes the file if needed.

    InvalidInput if it cannot be written, or if what is there is not understood.
    """

    def known(revoked: Revoked) -> bool:
        return (issuer, token_id) in revoked.tokens

    return _add(file, known, f"issuer = {_quoted(issuer)}\ntoken_id = {_quoted(token_id)}\n")


def revoke_subject(file: Path, *, issuer: str, subject: str, issued_before: datetime) -> bool:
    """The same for every token of the subject that was issued before that moment."""

    def known(revoked: Revoked) -> bool:
        before = revoked.subjects.get((issuer, subject))
        return before is not None and before >= issued_before

    entry = (
        f"issuer = {_quoted(issuer)}\nsubject = {_quoted(subject)}\n"
        f"issued_before = {issued_before.isoformat()}\n"
    )
    return _add(file, known, entry)


def _add(file: Path, known: Callable[[Revoked], bool], entry: str) -> bool:
    try:
        with _only_one_writer(file.parent):
            text = file.read_text(encoding="utf-8") if file.exists() else f"version = {VERSION}\n"
            if known(parse_revocations(text)):
                return False
            added = f"{text.rstrip()}\n\n[[revoked]]\n{entry}"
            parse_revocations(added)  # what services could not read must not get there
            _replace(file, added)
            return True
    except InvalidInput as error:
        raise InvalidInput(f"{file} is not a file of revocations: {error}. Nothing was changed.") from error
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "it is not text"
        raise InvalidInput(f"{file} cannot be written: {reason}. Nothing was changed.") from error


@contextmanager
def _only_one_writer(folder: Path) -> Iterator[None]:
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX)
        yield
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def _replace(file: Path, text: str) -> None:
    """Put `text` there at once, with the mode the file had: a service of another account may read it."""
    mode = stat.S_IMODE(file.stat().st_mode) if file.exists() else 0o600
    fresh = file.with_name(f".{file.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(
            os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode), "w", encoding="utf-8"
        ) as written:
            written.write(text)
            written.flush()
            os.fsync(written.fileno())
        fresh.chmod(mode)
        fresh.replace(file)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise


def _quoted(text: str) -> str:
    """A basic string of TOML; JSON escapes the same characters the same way, but for DEL."""
    return json.dumps(text, ensure_ascii=False).replace("\x7f", "\\u007f")
