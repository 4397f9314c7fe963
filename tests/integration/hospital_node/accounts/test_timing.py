"""What the time of an answer tells: nothing. And what logins take from others: little."""

from __future__ import annotations

import asyncio
import random
import statistics
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest

from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2 as pb
from services.hospital_node.accounts import attempts, signing_in
from services.hospital_node.accounts.passwords import Passwords
from tests.fakes.account_server import AccountServer, account_server
from tests.fakes.accounts import OTHER, OWNER
from tests.fakes.rpc_rig import code_of

ROUNDS = 60


@pytest.fixture
async def server(account_keys: Path, tmp_path: Path) -> AsyncIterator[AccountServer]:
    """With the real parameters: what must not show is the time that they take."""
    async with account_server(account_keys, tmp_path, passwords=Passwords()) as made:
        yield made


async def test_every_refused_login_takes_the_same_time_whatever_was_wrong(
    server: AccountServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Medians of interleaved logins, of names that are unknown, known, invited, disabled and locked.

    The tolerance comes from what is measured: five standard errors of a difference of two medians, and a
    quarter of the median for what a busy machine adds. Without the hash of nobody's password the
    medians differ by nearly all of it.
    """
    monkeypatch.setattr(signing_in, "ALLOWED", 10**6)
    monkeypatch.setattr(signing_in, "ALLOWED_FOR_ALL_NAMES", 10**6)
    monkeypatch.setattr(attempts, "ALLOWED", 10**6)
    olga = await server.stub((await server.claim()).access_token)
    await olga.InviteUser(pb.InviteUserRequest(name="ivy"))
    await server.join(olga, "dan")
    disabled = pb.ChangeUserRequest.ACTIVITY_DISABLED
    await olga.ChangeUser(pb.ChangeUserRequest(name="dan", activity=disabled))
    names = [OWNER, "nobody", "ivy", "dan"]
    taken: dict[str, list[float]] = {name: [] for name in names}
    tokenless = await server.stub()
    order = random.Random(1)
    for _ in range(ROUNDS):
        order.shuffle(names)
        for name in names:
            taken[name].append(await _refused_after_s(tokenless, name))
    medians = {name: statistics.median(times) for name, times in taken.items()}
    known = medians[OWNER]
    for name, median in medians.items():
        tolerance = 0.25 * known + 5 * (_error(taken[name]) ** 2 + _error(taken[OWNER]) ** 2) ** 0.5
        assert tolerance < 0.8 * known, "the machine is too busy for this to tell anything"
        assert abs(median - known) < tolerance, medians


async def _refused_after_s(stub: Any, name: str) -> float:
    started_s = time.perf_counter()
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.LogIn(pb.LogInRequest(name=name, password=OTHER))
    assert code_of(failure.value) == "unauthenticated"
    return time.perf_counter() - started_s


def _error(times: list[float]) -> float:
    """The standard error of the median: 1.25 times that of the mean, the spread from the quartiles."""
    low, _, high = statistics.quantiles(times, n=4)
    return 1.2533 * (high - low) / 1.349 / len(times) ** 0.5


async def test_a_flood_of_logins_is_partly_told_to_come_back_and_others_are_served_meanwhile(
    server: AccountServer,
) -> None:
    olga = await server.stub((await server.claim()).access_token)
    tokenless = await server.stub()

    async def flooding(number: int) -> str:
        try:
            await tokenless.LogIn(pb.LogInRequest(name=f"name{number}", password=OTHER))
        except grpc.aio.AioRpcError as error:
            return code_of(error)
        return "done"

    flood = [asyncio.ensure_future(flooding(number)) for number in range(200)]
    await asyncio.sleep(0.2)
    served = 0
    while not all(login.done() for login in flood):
        async with asyncio.timeout(5):
            await olga.WhoAmI(pb.WhoAmIRequest())
        served += 1
    answers = {login.result() for login in flood}
    assert answers == {"unauthenticated", "unavailable"}
    assert served > 5
