"""Requests with an id are done once, on both databases."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from sqlalchemy import text
from sqlalchemy.orm import Session

from libs.core.errors import FailedPrecondition, InvalidInput, NotFound
from libs.rpc._generated.trefoil.hospital.v1 import accounts_pb2 as pb
from services.hospital_node.adapters.answers import KEPT, once
from services.hospital_node.adapters.transactions import Transactions

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
ADA, EVE = "spiffe://trefoil.local/client/ada (ada)", "spiffe://trefoil.local/client/eve (eve)"


class Work:
    """Counts how often it ran."""

    def __init__(self) -> None:
        self.runs = 0

    def __call__(self, _session: Session) -> pb.InviteUserResponse:
        self.runs += 1
        return pb.InviteUserResponse(
            user=pb.User(name="ben"), invitation=pb.Invitation(code=f"secret code {self.runs}")
        )


Ask = Callable[..., Any]


@pytest.fixture
def work() -> Work:
    return Work()


@pytest.fixture
def ask(transactions: Transactions, work: Work) -> Ask:
    async def ask(
        request: Any = None, *, caller: str = ADA, now: datetime = NOW, work: Any = work, **secrets: Any
    ) -> pb.InviteUserResponse:
        return await once(
            transactions,
            caller=caller,
            request=request or pb.InviteUserRequest(request_id="request-1", name="ben"),
            answer_type=pb.InviteUserResponse,
            work=work,
            now=now,
            **secrets,
        )

    return ask


async def test_a_retry_gets_the_same_answer_and_does_nothing_twice(ask: Ask, work: Work) -> None:
    assert await ask() == await ask()
    assert work.runs == 1


async def test_twenty_retries_at_once_do_it_once(ask: Ask, work: Work) -> None:
    answers = await asyncio.gather(*(ask() for _ in range(20)))
    assert work.runs == 1
    assert {answer.invitation.code for answer in answers} == {"secret code 1"}


async def test_another_request_under_the_same_id_is_refused(ask: Ask, work: Work) -> None:
    await ask()
    with pytest.raises(FailedPrecondition, match="id of its own"):
        await ask(pb.InviteUserRequest(request_id="request-1", name="carla"))
    assert work.runs == 1


async def test_callers_and_methods_do_not_share_ids(ask: Ask, work: Work) -> None:
    await ask()
    await ask(caller=EVE)
    await ask(pb.ResetUserRequest(request_id="request-1", name="ben"))
    assert work.runs == 3


async def test_without_an_id_it_is_done_each_time(ask: Ask, work: Work) -> None:
    for _ in range(2):
        await ask(pb.InviteUserRequest(name="ben"))
    assert work.runs == 2


async def test_what_failed_is_tried_again(ask: Ask, work: Work) -> None:
    def fails(_session: Session) -> pb.InviteUserResponse:
        raise NotFound("not there yet")

    with pytest.raises(NotFound):
        await ask(work=fails)
    assert (await ask()).user.name == "ben"


async def test_ids_are_forgotten_after_a_week_and_may_then_be_another_request(ask: Ask, work: Work) -> None:
    await ask()
    await ask(now=NOW + KEPT - timedelta(seconds=1))
    assert work.runs == 1
    await ask(pb.InviteUserRequest(request_id="request-1", name="carla"), now=NOW + KEPT)
    assert work.runs == 2


async def test_secrets_are_given_once_and_stored_nowhere(
    ask: Ask, work: Work, transactions: Transactions
) -> None:
    request = pb.TransferOwnershipRequest(request_id="request-1", to="ben", password="correct horse")
    hidden = {"secret_in_request": ["password"], "secret_in_answer": ["invitation.code"]}
    assert (await ask(request, **hidden)).invitation.code == "secret code 1"
    request.password = "another"
    again = await ask(request, **hidden)
    assert (again.user.name, again.invitation.code) == ("ben", "")
    with transactions.engine.connect() as connection:
        stored = str(connection.execute(text("SELECT * FROM answered_calls")).all())
    assert "secret code" not in stored


@pytest.mark.parametrize("request_id", ["short", "with space", "x" * 65, "newline-at-end\n"])
async def test_ids_of_another_form_are_refused(ask: Ask, work: Work, request_id: str) -> None:
    with pytest.raises(InvalidInput, match="8 to 64"):
        await ask(pb.InviteUserRequest(request_id=request_id, name="ben"))
    assert work.runs == 0
