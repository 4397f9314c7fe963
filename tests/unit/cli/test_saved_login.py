"""A login on this machine's disk: private, renewed in time and by one at a time."""

from __future__ import annotations

import asyncio
import stat
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from libs.cli.client.saved_login import RENEW_BEFORE, SavedLogin
from libs.core.errors import InvalidInput, Unauthenticated
from libs.core.secret import Secret
from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2 as pb

NOW = datetime(2026, 11, 24, 12, tzinfo=UTC)
LIFETIME = timedelta(minutes=10)


class Node:
    """Takes each refresh token once, as the real one does."""

    def __init__(self) -> None:
        self.number, self.now = 0, NOW
        self.pause, self.asked = asyncio.Event(), asyncio.Event()
        self.pause.set()

    def tokens(self) -> pb.Tokens:
        self.number += 1
        made = pb.Tokens(access_token=f"access-{self.number}", refresh_token=f"refresh-{self.number}")
        made.access_expires_at.FromDatetime(self.now + LIFETIME)
        return made

    async def renew(self, refresh_token: Secret[str]) -> pb.Tokens:
        if refresh_token.expose() != f"refresh-{self.number}":
            raise Unauthenticated("stolen")
        made = self.tokens()
        self.asked.set()
        await self.pause.wait()
        return made


@pytest.fixture
def node() -> Node:
    return Node()


@pytest.fixture
def login(node: Node, tmp_path: Path) -> SavedLogin:
    saved = SavedLogin(tmp_path / "hospital.session")
    saved.write(node.tokens())
    return saved


async def fresh(login: SavedLogin, node: Node) -> datetime:
    return await login.ensure_fresh(node.renew, now=lambda: node.now)


def rights(folder: Path) -> set[int]:
    return {stat.S_IMODE(file.stat().st_mode) for file in folder.iterdir()}


async def test_tokens_are_for_this_user_alone_and_renewed_when_they_expire_soon(
    login: SavedLogin, node: Node, tmp_path: Path
) -> None:
    assert rights(tmp_path) == {0o600}
    assert await fresh(login, node) == NOW + LIFETIME
    assert login.token_file.read_text() == "access-1"
    node.now += LIFETIME - RENEW_BEFORE
    assert await fresh(login, node) == node.now + LIFETIME
    assert login.token_file.read_text() == "access-2"
    assert rights(tmp_path) == {0o600}
    assert "refresh-2" not in repr(login.read())


async def test_of_several_at_once_one_renews(login: SavedLogin, node: Node) -> None:
    node.now += LIFETIME
    await asyncio.gather(*(fresh(login, node) for _ in range(5)))
    assert node.number == 2


async def test_a_command_that_is_stopped_saves_what_it_began(login: SavedLogin, node: Node) -> None:
    node.now += LIFETIME
    node.pause.clear()
    renewing = asyncio.ensure_future(fresh(login, node))
    await asyncio.wait_for(node.asked.wait(), 30)
    renewing.cancel()
    asyncio.get_running_loop().call_later(0.05, node.pause.set)
    with pytest.raises(asyncio.CancelledError):
        await renewing
    assert login.token_file.read_text() == "access-2"


async def test_nobody_logged_in_a_damaged_file_and_an_open_one_are_told(
    login: SavedLogin, node: Node, tmp_path: Path
) -> None:
    path = tmp_path / "hospital.session"
    path.chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod"):
        await fresh(login, node)
    path.chmod(0o600)
    path.write_text("{")
    with pytest.raises(Unauthenticated, match="trefoil login"):
        await fresh(login, node)
    login.forget()
    with pytest.raises(Unauthenticated, match="trefoil login"):
        await fresh(login, node)
    assert not login.token_file.exists()
