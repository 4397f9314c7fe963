"""What a remote service said about a token, remembered for a short while, under the token's hash."""

from __future__ import annotations

import hashlib
from collections import OrderedDict
from dataclasses import dataclass
from datetime import datetime
from typing import Generic, TypeVar

from libs.core.clock import Clock
from libs.core.errors import Unauthenticated

T = TypeVar("T")
V = TypeVar("V")


@dataclass(frozen=True)
class _Entry(Generic[T]):
    value: T
    until_s: float
    expires_at: datetime | None


class VerdictCache(Generic[T]):
    """Remembers acceptances, never beyond the token's expiry, and refusals.

    Each kind has `entries` places of its own, so that a flood of made-up tokens forgets no good one. Keys are
    SHA-256 of the token: a dump of the memory gives nobody a token to use.
    """

    def __init__(self, *, entries: int, accepted_s: float, refused_s: float, clock: Clock) -> None:
        self._entries, self._accepted_s, self._refused_s, self._clock = entries, accepted_s, refused_s, clock
        self._accepted: OrderedDict[bytes, _Entry[T]] = OrderedDict()
        self._refused: OrderedDict[bytes, _Entry[str]] = OrderedDict()

    def get(self, token: str) -> T | None:
        """What was accepted, None if nothing is known. Raises the remembered Unauthenticated."""
        key = _key(token)
        accepted = self._fresh(self._accepted, key)
        if accepted is not None:
            return accepted.value
        refused = self._fresh(self._refused, key)
        if refused is not None:
            raise Unauthenticated(refused.value)
        return None

    def accept(self, token: str, value: T, *, expires_at: datetime) -> None:
        """Remember that the token was accepted."""
        self._put(self._accepted, token, value, self._accepted_s, expires_at)

    def refuse(self, token: str, text: str) -> None:
        """Remember that the token was refused, with the text to say."""
        self._put(self._refused, token, text, self._refused_s, None)

    def __len__(self) -> int:
        return len(self._accepted) + len(self._refused)

    def _put(
        self,
        kept: OrderedDict[bytes, _Entry[V]],
        token: str,
        value: V,
        seconds: float,
        expires_at: datetime | None,
    ) -> None:
        key = _key(token)
        kept[key] = _Entry(value, self._clock.monotonic_s() + seconds, expires_at)
        kept.move_to_end(key)
        while len(kept) > self._entries:
            kept.popitem(last=False)

    def _fresh(self, kept: OrderedDict[bytes, _Entry[V]], key: bytes) -> _Entry[V] | None:
        entry = kept.get(key)
        if entry is None:
            return None
        expired = entry.expires_at is not None and self._clock.now() >= entry.expires_at
        if expired or self._clock.monotonic_s() >= entry.until_s:
            del kept[key]
            return None
        return entry


def _key(token: str) -> bytes:
    return hashlib.sha256(token.encode()).digest()
