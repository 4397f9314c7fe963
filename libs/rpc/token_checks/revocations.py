"""Tokens that were taken back before they expire: a file, read again whenever it changes."""

from __future__ import annotations

import asyncio
import os
import stat
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from libs.core.errors import InvalidInput, Unauthenticated, Unavailable
from libs.rpc.token_checks.claims import ASK, TokenClaims
from libs.runtime.logging import get_logger

log = get_logger(__name__)

VERSION = 1
MAX_FILE_BYTES = 4 * 1024 * 1024

# which file it is, and which version of it: replacing it changes the inode, writing into it the times
_Stamp = tuple[int, int, int, int, int]


@dataclass(frozen=True)
class Revoked:
    """Which tokens of which issuers are worth nothing."""

    tokens: frozenset[tuple[str, str]] = frozenset()
    """(issuer, token id)."""
    subjects: Mapping[tuple[str, str], datetime] = field(default_factory=dict)
    """(issuer, subject) to the moment before which their tokens were issued."""

    def require_valid(self, claims: TokenClaims) -> None:
        """Unauthenticated if the token was taken back; a listed subject's must say when it was issued."""
        before = self.subjects.get((claims.issuer, claims.subject))
        listed = (claims.issuer, claims.token_id) in self.tokens
        if listed or (before is not None and (claims.issued_at is None or claims.issued_at < before)):
            raise Unauthenticated(f"The token was taken back. {ASK}")


def parse_revocations(document: str) -> Revoked:
    """The entries of a file of revocations. InvalidInput says what is wrong with it.

    An empty file is wrong too (`version` is missing): it is what a full disk leaves behind.
    """
    try:
        said = tomllib.loads(document)
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise InvalidInput(f"not TOML: {error}") from error
    if said.keys() - {"version", "revoked"} or said.get("version") != VERSION:
        raise InvalidInput(f"it has version = {VERSION} and [[revoked]] entries, and nothing else")
    entries = said.get("revoked", [])
    if not isinstance(entries, list):
        raise InvalidInput("entries are written [[revoked]]")
    tokens: set[tuple[str, str]] = set()
    subjects: dict[tuple[str, str], datetime] = {}
    for entry in entries:
        match entry:
            case {"issuer": str(issuer), "token_id": str(token_id)} if len(entry) == 2:
                tokens.add((issuer, token_id))
            case {"issuer": str(issuer), "subject": str(subject), "issued_before": datetime() as before} if (
                len(entry) == 3 and before.tzinfo is not None
            ):
                subjects[issuer, subject] = max(before, subjects.get((issuer, subject), before))
            case _:
                raise InvalidInput(
                    "an entry has issuer and token_id, or issuer, subject and issued_before (a time with its "
                    "offset, such as 2026-11-24T12:00:00Z)"
                )
    return Revoked(frozenset(tokens), subjects)


class RevocationList:
    """The file as it is at this call; while it cannot be read or understood, no token is accepted.

    Replace the file as `trefoil keys revoke` does: a change in place may be seen half written.
    """

    def __init__(self, file: Path) -> None:
        self._file = file
        self._lock = asyncio.Lock()
        self._stamp: _Stamp | None = None
        self._revoked: Revoked | None = None
        try:
            self._read()
        except (OSError, ValueError, InvalidInput) as error:
            raise InvalidInput(
                f"The revocations {file} cannot be used: {_reason(error)}. "
                f"A file without any says: version = {VERSION}"
            ) from error

    async def check(self, claims: TokenClaims) -> None:
        """Unauthenticated if the token was taken back, Unavailable while nobody can tell.

        Cost: a look at the file's times, some microseconds, not worth a thread; reading it when they changed.
        """
        async with self._lock:
            try:
                if self._stamp is None or _stamp(self._file.stat()) != self._stamp:
                    await asyncio.to_thread(self._read)
            except (OSError, ValueError, InvalidInput) as error:
                if self._revoked is not None:
                    log.error("token_revocations_unreadable", file=str(self._file), reason=_reason(error))
                self._stamp, self._revoked = None, None
            revoked = self._revoked
        if revoked is None:
            raise Unavailable(
                "This service cannot tell which tokens were taken back, and accepts none. Tell its operator."
            )
        revoked.require_valid(claims)

    def _read(self) -> None:
        with self._file.open("rb") as file:
            status = os.fstat(file.fileno())
            if status.st_mode & stat.S_IWOTH:
                raise InvalidInput(f"everybody on this machine may change it; run chmod o-w {self._file}")
            document = file.read(MAX_FILE_BYTES + 1)
        if len(document) > MAX_FILE_BYTES:
            raise InvalidInput(f"it is larger than {MAX_FILE_BYTES} bytes; take out tokens that have expired")
        self._revoked = parse_revocations(document.decode("utf-8"))
        self._stamp = _stamp(status)
        log.info(
            "token_revocations_read",
            file=str(self._file),
            tokens=len(self._revoked.tokens),
            subjects=len(self._revoked.subjects),
        )


def _stamp(status: os.stat_result) -> _Stamp:
    return (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)


def _reason(error: Exception) -> Any:
    return error.strerror if isinstance(error, OSError) else str(error)
