"""The tokens of a login on this machine's disk, renewed before they expire, by one process at a time.

`session = "hospital.session"` in a profile names the file; `hospital.session.token` beside it holds the
access token alone, which channels read at every call.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

from libs.core.errors import Unauthenticated
from libs.core.secret import Secret
from libs.runtime.private_files import require_private, write_private

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2

RENEW_BEFORE = timedelta(minutes=2)
"""An access token that is good for less than that is renewed before it is used."""

_FINISH_S = 10.0

LOG_IN = "Log in: trefoil login"

Renew = Callable[[Secret[str]], Awaitable["accounts_pb2.Tokens"]]
"""The next tokens for a refresh token."""


@dataclass(frozen=True)
class SavedTokens:
    """What is in the file."""

    refresh_token: Secret[str]
    access_expires_at: datetime
    session_id: str


class SavedLogin:
    """One profile's login. Every file is for this user alone."""

    def __init__(self, path: Path) -> None:
        self._path = path

    @property
    def token_file(self) -> Path:
        """The access token alone."""
        return token_file_of(self._path)

    def read(self) -> SavedTokens:
        """What was saved. Unauthenticated if nobody is logged in, InvalidInput if others may read it."""
        try:
            require_private(self._path)
            said = json.loads(self._path.read_text(encoding="utf-8"))
            return SavedTokens(
                refresh_token=Secret(str(said["refresh_token"])),
                access_expires_at=datetime.fromisoformat(said["access_expires_at"]),
                session_id=str(said["session_id"]),
            )
        except FileNotFoundError as error:
            raise Unauthenticated(f"Nobody is logged in with this profile. {LOG_IN}") from error
        except (OSError, ValueError, KeyError, TypeError) as error:
            raise Unauthenticated(f"The session file {self._path} cannot be read. {LOG_IN}") from error

    def write(self, tokens: accounts_pb2.Tokens) -> None:
        """Save a pair of tokens; the refresh token first, for it is the one that cannot be had again."""
        expires_at = tokens.access_expires_at.ToDatetime(tzinfo=UTC)
        said = {
            "refresh_token": tokens.refresh_token,
            "access_expires_at": expires_at.isoformat(),
            "session_id": tokens.session_id,
        }
        write_private(self._path, json.dumps(said))
        write_private(self.token_file, tokens.access_token)

    def forget(self) -> None:
        """Nobody is logged in any more."""
        for path in (self._path, self.token_file):
            path.unlink(missing_ok=True)

    async def ensure_fresh(self, renew: Renew, *, now: Callable[[], datetime]) -> datetime:
        """Renew the tokens if they expire soon; until when the access token is good.

        Of several processes one renews and the others find what it wrote: a refresh token that is used twice
        ends its session. What was begun is finished and saved even if the command is stopped meanwhile.
        """
        saved = self.read()
        if self._good(saved, now()):
            return saved.access_expires_at
        renewing = asyncio.ensure_future(self._renewed(renew, now))
        try:
            return await asyncio.shield(renewing)
        except asyncio.CancelledError:
            # The node has used the old refresh token up by now: the next one must not be lost.
            await asyncio.wait([renewing], timeout=_FINISH_S)
            raise

    async def _renewed(self, renew: Renew, now: Callable[[], datetime]) -> datetime:
        async with self._alone():
            saved = self.read()
            if self._good(saved, now()):
                return saved.access_expires_at
            tokens = await renew(saved.refresh_token)
            self.write(tokens)
            return tokens.access_expires_at.ToDatetime(tzinfo=UTC)

    def _good(self, saved: SavedTokens, now: datetime) -> bool:
        return saved.access_expires_at - now > RENEW_BEFORE and self.token_file.exists()

    @asynccontextmanager
    async def _alone(self) -> AsyncIterator[None]:
        """Hold the lock that other processes of this user wait for."""
        path = self._path.with_name(f"{self._path.name}.lock")
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            await asyncio.to_thread(fcntl.flock, descriptor, fcntl.LOCK_EX)
            yield
        finally:
            os.close(descriptor)


def token_file_of(session: Path) -> Path:
    """Where the access token of a saved login is."""
    return session.with_name(f"{session.name}.token")
