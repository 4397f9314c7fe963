"""Passwords: which are good enough, and their Argon2id hashes, computed beside the event loop."""

from __future__ import annotations

import asyncio
import os
import re
import secrets
import sys
import threading
import unicodedata
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from itertools import pairwise
from typing import TypeVar

import argon2
from argon2.exceptions import InvalidHashError, VerificationError

from libs.core.errors import InvalidInput, Unavailable
from libs.core.secret import Secret
from services.hospital_node.accounts.turnstile import TOO_BUSY

MIN_CHARACTERS = 12
MAX_BYTES = 256
MIN_DIFFERENT = 6

MEMORY_KIB, PASSES, LANES = 19 * 1024, 2, 1
"""Argon2id as OWASP recommends it: 19 MiB, 2 passes, 1 lane (DECISIONS.md)."""

MAX_WAITING = 64
_NICE = 10

# What is left of the usual passwords once digits, signs and look-alikes are gone.
_WORDS = """
password passwort passwords motdepasse contrasena senha wachtwoord changeme changeit letmein
welcome willkommen bienvenue qwerty qwertz azerty qwertyuiop qwertzuiop azertyuiop asdfgh asdfghjkl
zxcvbn zxcvbnm yxcvbnm iloveyou ichliebedich sunshine princess football baseball basketball superman
batman starwars pokemon dragon monkey shadow master trustno login admin administrator root toor default
guest user test testing tester testtest secret geheim geheimnis hello hallo hospital clinic klinik
krankenhaus doctor doktor nurse medicine radiology radiologie pneumonia patient patients health
healthcare trefoil training federated summer winter spring autumn sommer fruhling herbst january
february march april june july august september october november december monday tuesday wednesday
thursday friday saturday sunday correcthorsebatterystaple abcdefghijkl abcdefghijklmnopqrstuvwxyz abcdef
abcd abc
"""
_COMMON = frozenset(_WORDS.split())
_LOOK_ALIKES = str.maketrans({"0": "o", "1": "i", "3": "e", "4": "a", "5": "s", "7": "t", "@": "a", "$": "s"})

T = TypeVar("T")


def normalised(password: str) -> str:
    """The same characters in the same form, whatever keyboard they come from (RFC 8265: NFC)."""
    return unicodedata.normalize("NFC", password)


def require_good(password: str, *, own_words: Iterable[str]) -> None:
    """InvalidInput for a new password that is too short, too long or easy to guess.

    `own_words` are the names of the account, its person and the hospital.
    """
    text = normalised(password)
    if len(text) < MIN_CHARACTERS:
        raise InvalidInput(f"A password has at least {MIN_CHARACTERS} characters. Take several words.")
    if len(text.encode()) > MAX_BYTES:
        raise InvalidInput(f"A password has at most {MAX_BYTES} bytes. Take a shorter one.")
    folded = text.casefold()
    if len(set(folded)) < MIN_DIFFERENT or _is_run(folded):
        raise InvalidInput("The password repeats itself or counts up. Take several unrelated words.")
    if _is_common(folded):
        raise InvalidInput("The password is among those that are tried first. Take several unrelated words.")
    words = {word for text in own_words for word in re.split(r"[\W_]+", text.casefold()) if len(word) >= 4}
    if any(word in folded for word in words):
        raise InvalidInput(
            "The password contains a name of yours or of the hospital. Take several unrelated words."
        )


def _is_run(text: str) -> bool:
    """Whether nearly every character is its neighbour's successor, predecessor or equal: 123456789012."""
    steps = sum(abs(ord(a) - ord(b)) <= 1 for a, b in pairwise(text))
    return steps >= 0.8 * (len(text) - 1)


def _is_common(text: str) -> bool:
    """Whether only a common word remains without digits and signs, or with look-alikes read as letters."""
    bare = re.sub(r"[\W\d_]+", "", text)
    read = re.sub(r"[\W\d_]+", "", text.translate(_LOOK_ALIKES))
    stripped = re.sub(r"[\W\d_]+", "", re.sub(r"[\W\d_]+$", "", text).translate(_LOOK_ALIKES))
    return any(word in _COMMON or _halves_common(word) for word in (bare, read, stripped)) or not bare


def _halves_common(word: str) -> bool:
    """passwordpassword, adminpassword."""
    return any(word[:at] in _COMMON and word[at:] in _COMMON for at in range(3, len(word) - 2))


def _step_back() -> None:
    """Let every other thread of this process go first, where threads have priorities of their own (Linux)."""
    if sys.platform == "linux":
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), _NICE)


class Passwords:
    """Hashes and verifies, a few at a time and so many waiting: logins cannot take the processor from others.

    One more than may wait is refused with Unavailable. `verify` takes the same time whether there is a hash.
    """

    def __init__(
        self,
        *,
        memory_kib: int = MEMORY_KIB,
        passes: int = PASSES,
        threads: int | None = None,
        max_waiting: int = MAX_WAITING,
    ) -> None:
        """By default half of the processors compute hashes, at least one."""
        self._hasher = argon2.PasswordHasher(
            time_cost=passes, memory_cost=memory_kib, parallelism=LANES, type=argon2.Type.ID
        )
        self._pool = ThreadPoolExecutor(
            max_workers=threads or max(1, (os.cpu_count() or 2) // 2),
            thread_name_prefix="passwords",
            initializer=_step_back,
        )
        self._waiting, self._max_waiting = 0, max_waiting
        # Nobody knows its password: what an account that does not exist is compared with.
        self._nobodys = self._hasher.hash(secrets.token_urlsafe(32))

    async def hash(self, password: Secret[str]) -> str:
        """A new hash with its parameters and salt in it. Unavailable when too many wait."""
        text = normalised(password.expose())
        return await self._queued(lambda: self._hasher.hash(text))

    async def verify(self, password: Secret[str], hashed: str) -> bool:
        """Whether the password has this hash. With no hash ("") it is False, after the same work.

        Unavailable when too many wait.
        """
        text = normalised(password.expose())
        if len(text.encode(errors="replace")) > MAX_BYTES:  # no account has such a password
            text, hashed = "", ""
        return await self._queued(lambda: self._verify(text, hashed or self._nobodys) and hashed != "")

    def outdated(self, hashed: str) -> bool:
        """Whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(hashed)

    def close(self) -> None:
        """Let the threads end."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _verify(self, text: str, hashed: str) -> bool:
        try:
            return self._hasher.verify(hashed, text)
        except (VerificationError, InvalidHashError):
            return False

    async def _queued(self, work: Callable[[], T]) -> T:
        if self._waiting >= self._max_waiting:
            raise Unavailable(TOO_BUSY)
        self._waiting += 1
        try:
            return await asyncio.get_running_loop().run_in_executor(self._pool, work)
        finally:
            self._waiting -= 1
