"""What a coordinator that loops or lies, or one eager scientist, can pile up at a node."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from services.hospital_node.access import requests
from services.hospital_node.access.domain import Standing
from services.hospital_node.access.refusals import MOST_AT_ONCE, ONE_MORE_AFTER, REMEMBERED, Refusals
from services.hospital_node.access.requests import Decision
from tests.fakes.access import AccessRig
from tests.fakes.hospital_ports import NOW, PLAN
from tests.unit.hospital_node.access.test_requests import MALLORY


async def refused(rig: AccessRig, name: str) -> None:
    """A request whose id is not the one that was signed."""
    await rig.access.access_asked(replace(rig.people.asked(), request_id=name))


async def test_the_same_refusal_enters_the_trail_once_however_often_it_comes(light_rig: AccessRig) -> None:
    for _ in range(20):
        await refused(light_rig, "forged")
    assert light_rig.audited().count("statement.refused") == 1
    assert len(light_rig.listener.told) == 20  # the coordinator is answered each time


def test_refusals_of_ever_new_names_leave_room_in_the_trail() -> None:
    refusals = Refusals()
    entered = [refusals.enter(f"request/{i}", "why", now=NOW) for i in range(10 * MOST_AT_ONCE)]
    assert entered == [0] * MOST_AT_ONCE + [None] * (9 * MOST_AT_ONCE)
    later = NOW + 2 * ONE_MORE_AFTER
    assert [refusals.enter(f"later/{i}", "why", now=later) for i in range(3)] == [9 * MOST_AT_ONCE, 0, None]


def test_what_is_remembered_of_refusals_is_bounded_and_so_is_what_a_long_silence_saves_up() -> None:
    refusals = Refusals()
    for i in range(2 * REMEMBERED):
        refusals.enter(f"request/{i}", "why", now=NOW)
    assert len(refusals._seen) == REMEMBERED
    year = NOW + timedelta(days=365)
    entered = [refusals.enter(f"next/{i}", "why", now=year) for i in range(2 * MOST_AT_ONCE)]
    assert sum(one is not None for one in entered) == MOST_AT_ONCE


async def test_one_requester_cannot_pile_up_requests_and_others_still_can_ask(
    light_rig: AccessRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = light_rig
    monkeypatch.setattr(requests, "MAX_WAITING", 3)
    for i in range(3):
        await rig.access.access_asked(rig.people.asked(f"request-{i}"))
    await rig.access.access_asked(rig.people.asked("one-more"))
    await rig.access.plan_proposed(rig.people.proposal())
    await rig.access.access_asked(rig.people.asked("another-person", signer=MALLORY))
    assert {one.request_id for one in await rig.requests()} == {
        *(f"request-{i}" for i in range(3)),
        "another-person",
    }
    assert await rig.study() is None
    told = {one.request_id: one for one in rig.listener.told}
    assert told["one-more"].standing is Standing.DENIED
    assert "wait for the hospital's decision already" in told["one-more"].reason
    [(_, approved, reason)] = rig.listener.plans
    assert (approved, reason) == (False, told["one-more"].reason)


async def test_what_was_decided_or_a_rule_approves_takes_no_place_of_those_that_wait(
    light_rig: AccessRig, monkeypatch: pytest.MonkeyPatch
) -> None:
    rig = light_rig
    monkeypatch.setattr(requests, "MAX_WAITING", 1)
    await rig.access.access_asked(rig.people.asked("request-0"))
    await rig.decide("request-0", Decision(approve=False, plan_hash=PLAN.hash))
    await rig.access.access_asked(rig.people.asked("request-1"))
    await rig.add_rule()
    await rig.access.access_asked(rig.people.asked("request-2"))
    standings = {one.request_id: one.standing for one in rig.listener.told}
    assert standings["request-1"] is Standing.PENDING
    assert standings["request-2"] is Standing.APPROVED
