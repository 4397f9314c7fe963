"""Logging in and out of a hospital node, and keeping the login fresh while a command runs."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from libs.cli.client.profile import Profile, load_profile
from libs.cli.client.saved_login import RENEW_BEFORE, SavedLogin
from libs.cli.client.timeouts import CALL_TIMEOUT_S
from libs.core.errors import FailedPrecondition, Unavailable
from libs.core.secret import Secret
from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2 as pb
from libs.rpc._generated.trefoil.hospital.v1.accounts_pb2_grpc import AccountServiceStub
from libs.rpc.channel import open_channel, translated
from libs.rpc.identity import Identity, Kind

if TYPE_CHECKING:
    from libs.rpc._generated.trefoil.hospital.v1.accounts_pb2_grpc import AccountServiceAsyncStub

T = TypeVar("T")

_RETRY_S = 5.0


@asynccontextmanager
async def tokenless(
    profile: Profile, *, token_file: Path | None = None
) -> AsyncIterator[AccountServiceAsyncStub]:
    """The node's accounts over a channel of its own, which sends no token unless it is given one."""
    section = profile.need_hospital()
    server = Identity(Kind.HOSPITAL, section.name)
    channel = open_channel(
        address=section.address, server=server, tls=profile.tls.files, token_file=token_file
    )
    async with channel:
        with translated():
            yield AccountServiceStub(channel)


async def log_in(profile: Path, *, name: str, password: Secret[str], second_factor: str = "") -> pb.Tokens:
    """Log in and save the tokens where the profile says. Unauthenticated if anything is wrong."""

    async def ask(accounts: AccountServiceAsyncStub) -> pb.Tokens:
        request = pb.LogInRequest(name=name, password=password.expose(), second_factor=second_factor)
        return (await accounts.LogIn(request, timeout=CALL_TIMEOUT_S)).tokens

    return await _saved(profile, ask)


async def claim_node(
    profile: Path, *, code: Secret[str], name: str, full_name: str, password: Secret[str]
) -> pb.Tokens:
    """Make the node's owner and log in as them."""

    async def ask(accounts: AccountServiceAsyncStub) -> pb.Tokens:
        request = pb.ClaimNodeRequest(
            code=code.expose(), name=name, full_name=full_name, password=password.expose()
        )
        return (await accounts.ClaimNode(request, timeout=CALL_TIMEOUT_S)).tokens

    return await _saved(profile, ask)


async def accept_invitation(profile: Path, *, code: Secret[str], password: Secret[str]) -> pb.Tokens:
    """Give an invited account its password and log in."""

    async def ask(accounts: AccountServiceAsyncStub) -> pb.Tokens:
        request = pb.AcceptInvitationRequest(code=code.expose(), password=password.expose())
        return (await accounts.AcceptInvitation(request, timeout=CALL_TIMEOUT_S)).tokens

    return await _saved(profile, ask)


async def log_out(profile: Path) -> None:
    """End the session at the node and forget its tokens, which are forgotten even if the node says no."""
    loaded = load_profile(profile)
    login = SavedLogin(saved_where(loaded))
    login.read()
    try:
        await renewed(loaded)
        async with tokenless(loaded, token_file=login.token_file) as accounts:
            await accounts.LogOut(pb.LogOutRequest(), timeout=CALL_TIMEOUT_S)
    finally:
        login.forget()


async def renewed(profile: Profile) -> datetime:
    """Renew the profile's login if it expires soon; until when its access token is good."""

    async def renew(refresh_token: Secret[str]) -> pb.Tokens:
        async with tokenless(profile) as accounts:
            request = pb.RefreshSessionRequest(refresh_token=refresh_token.expose())
            return (await accounts.RefreshSession(request, timeout=CALL_TIMEOUT_S)).tokens

    return await SavedLogin(saved_where(profile)).ensure_fresh(renew, now=lambda: datetime.now(UTC))


@asynccontextmanager
async def kept_fresh(profile: Profile) -> AsyncIterator[None]:
    """Within it, the profile's login stays good, however long that takes. Nothing for a token file."""
    if profile.hospital is None or profile.hospital.session is None:
        yield
        return
    good_until = await renewed(profile)
    renewing = asyncio.create_task(_keep_renewing(profile, good_until))
    try:
        yield
    finally:
        renewing.cancel()
        with suppress(asyncio.CancelledError):
            await renewing


async def _keep_renewing(profile: Profile, good_until: datetime) -> None:
    while True:
        left = (good_until - datetime.now(UTC) - RENEW_BEFORE).total_seconds()
        await asyncio.sleep(max(left, _RETRY_S))
        with suppress(Unavailable):  # the calls themselves will say so; the next try may work
            good_until = await renewed(profile)


async def _saved(path: Path, ask: Callable[[AccountServiceAsyncStub], Awaitable[pb.Tokens]]) -> pb.Tokens:
    profile = load_profile(path)
    login = SavedLogin(saved_where(profile))
    async with tokenless(profile) as accounts:
        tokens = await ask(accounts)
    login.write(tokens)
    return tokens


def saved_where(profile: Profile) -> Path:
    """The file for the login's tokens; FailedPrecondition if the profile names none."""
    section = profile.need_hospital()
    if section.session is None:
        raise FailedPrecondition(
            "The profile says no file for a login. In its [hospital] section, put "
            'session = "hospital.session" in the place of token.'
        )
    return section.session
