"""Which passwords are taken, and that hashing them takes nobody else's time."""

from __future__ import annotations

import asyncio
import os
import sys
import threading
from collections.abc import Iterator

import argon2
import pytest

from libs.core.errors import InvalidInput, Unavailable
from libs.core.secret import Secret
from services.hospital_node.accounts.passwords import (
    MAX_BYTES,
    MEMORY_KIB,
    PASSES,
    Passwords,
    require_good,
)
from tests.fakes.accounts import GOOD, OTHER, cheap_passwords

NAMES = ("olga", "Olga Ownerova", "st-mary")


@pytest.fixture
def passwords() -> Iterator[Passwords]:
    made = cheap_passwords(threads=1, max_waiting=3)
    yield made
    made.close()


@pytest.mark.parametrize(
    "password",
    [
        "short",
        "elevenchars",
        "x" * (MAX_BYTES + 1),
        "aaaaaaaaaaaaaaaa",
        "abababababababab",
        "123456789012",
        "abcdefghijklmnop",
        "987654321098",
        "password1234",
        "Password2026!",
        "P@ssw0rd!!!!",
        "passwordpassword",
        "Welcome123456",
        "qwertyuiop12",
        "adminpassword",
        "correcthorsebatterystaple",
        "Pneumonia2026",
        "202611241234",
        "my name is olga",
        "OwnerovaIsGreat",
        "the saint mary st-mary",
        "i like marys mary",
    ],
)
def test_passwords_that_are_easy_to_guess_are_refused(password: str) -> None:
    with pytest.raises(InvalidInput) as error:
        require_good(password, own_words=NAMES)
    assert password not in str(error.value)


@pytest.mark.parametrize(
    "password", [GOOD, OTHER, "Tr4verse-Quiet-Moss", "ünder dem blauen Tisch", "9f2Kq!vLx#8wZ"]
)
def test_others_are_taken(password: str) -> None:
    require_good(password, own_words=NAMES)


async def test_the_same_characters_from_another_keyboard_are_the_same_password(passwords: Passwords) -> None:
    hashed = await passwords.hash(Secret("under the cafe\N{COMBINING ACUTE ACCENT}"))
    assert await passwords.verify(Secret("under the caf\N{LATIN SMALL LETTER E WITH ACUTE}"), hashed)


async def test_hashes_are_argon2id_with_the_parameters_that_were_decided() -> None:
    made = Passwords()
    hashed = await made.hash(Secret(GOOD))
    made.close()
    assert hashed.startswith(f"$argon2id$v=19$m={MEMORY_KIB},t={PASSES},p=1$")
    assert argon2.PasswordHasher().verify(hashed, GOOD)


async def test_without_a_hash_nothing_is_right_not_even_nothing(passwords: Passwords) -> None:
    for password in ("", GOOD):
        assert not await passwords.verify(Secret(password), "")
    assert not await passwords.verify(Secret(GOOD), "$argon2id$damaged")


async def test_more_than_may_wait_are_refused_at_once_and_the_event_loop_goes_on(
    passwords: Passwords,
) -> None:
    """While the one thread is busy, three wait, the fourth is told to come back, and others are served."""
    busy, finish = threading.Event(), threading.Event()

    def hold() -> None:
        busy.set()
        finish.wait(10)

    held = asyncio.ensure_future(passwords._queued(hold))
    await asyncio.to_thread(busy.wait)
    waiting = [asyncio.ensure_future(passwords.verify(Secret(GOOD), "")) for _ in range(2)]
    await asyncio.sleep(0)
    with pytest.raises(Unavailable, match="Try again"):
        await asyncio.wait_for(passwords.verify(Secret(GOOD), ""), 30)
    finish.set()
    await asyncio.gather(held, *waiting)
    assert not await passwords.verify(Secret(GOOD), "")


@pytest.mark.skipif(sys.platform != "linux", reason="threads have priorities of their own on Linux only")
async def test_whoever_hashes_lets_the_rest_of_the_process_go_first(passwords: Passwords) -> None:
    def priority() -> int:
        return os.getpriority(os.PRIO_PROCESS, threading.get_native_id())

    assert await passwords._queued(priority) > priority()
