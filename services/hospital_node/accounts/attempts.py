"""How wrong passwords are counted, and for how long they lock. Nothing here does any I/O.

They are counted per name *and* client certificate: who guesses at somebody's password locks it for their own
machine only, never for the owner at his. Names that no account has are counted in the same way.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from datetime import datetime, timedelta

ALLOWED = 10
"""Wrong attempts before the first lock, for one name from one client."""
ALLOWED_FOR_ALL_NAMES = 50
"""The same for one client and all names together: bounds who tries one password on many names, and memory."""
FIRST_LOCK = timedelta(minutes=1)
LONGEST_LOCK = timedelta(hours=1)
FORGOTTEN_AFTER = timedelta(hours=24)

ALL_NAMES = "*"
"""Stands for all names together; no account has it."""

_MAX_NAME = 63


@dataclass(frozen=True)
class Attempts:
    """`count` wrong ones without a right one in between, the last at `last_at`."""

    count: int
    last_at: datetime

    def locked_until(self, *, allowed: int = ALLOWED) -> datetime | None:
        """The end of the lock: a minute after the tenth, twice as long after each further one, up to 1 h."""
        if self.count < allowed:
            return None
        doublings = min(self.count - allowed, 10)
        lock: timedelta = min(FIRST_LOCK * int(2**doublings), LONGEST_LOCK)
        return self.last_at + lock

    def locked(self, now: datetime, *, allowed: int = ALLOWED) -> bool:
        """Whether nothing is accepted at this moment, not even what is right."""
        until = self.locked_until(allowed=allowed)
        return until is not None and now < until


def counted(before: Attempts | None, now: datetime) -> Attempts:
    """One more, made at `now`. A day without any is a new beginning."""
    forgotten = before is None or now - before.last_at >= FORGOTTEN_AFTER
    return Attempts(1 if before is None or forgotten else before.count + 1, now)


def attempt_name(name: str) -> str:
    """Under which name attempts are counted: any text that somebody sends, in 64 characters."""
    if len(name) <= _MAX_NAME and name.isascii() and name.isprintable() and not name.startswith("*"):
        return name
    return f"*{hashlib.sha256(name.encode(errors='surrogatepass')).hexdigest()[:48]}"
