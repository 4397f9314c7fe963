"""What an event may say, and what its hash covers."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta, timezone

import pytest

from libs.core.errors import Bug, InvalidInput
from libs.runtime.audit.entry import GENESIS, MAX_TEXT, Event, Outcome, chain, entry_hash, readable

TRAIL = "spiffe://trefoil.local/party/0"
NOW = datetime(2026, 11, 24, 22, 0, tzinfo=UTC)


@pytest.mark.parametrize(
    "action", ["", "published", "Dataset.published", "dataset published", "dataset.", ".x"]
)
def test_an_action_that_does_not_read_like_one_is_a_bug(action: str) -> None:
    with pytest.raises(Bug):
        Event(action, "system")


@pytest.mark.parametrize(
    "details",
    [
        {"epsilon": 1.5},
        {"image": b"..."},
        {"list": [1]},
        {"none": None},
        {"Name": 1},
        {"big": 2**63},
        {f"d{n}": n for n in range(13)},
    ],
)
def test_what_is_no_short_scalar_is_a_bug(details: dict[str, object]) -> None:
    with pytest.raises(Bug):
        Event("dataset.published", "system", details=details)  # type: ignore[arg-type]


def test_a_long_detail_is_refused_in_words_for_the_caller() -> None:
    with pytest.raises(InvalidInput, match="purpose"):
        Event("access.requested", "system", details={"purpose": "x" * 201})


def test_names_stay_readable_and_different() -> None:
    assert readable("a\x1b[31mb\n\x00c") == "a?[31mb??c"
    one, other = readable("x" * 300), readable("x" * 301)
    assert len(one) == len(other) == MAX_TEXT
    assert one != other
    assert readable("\ud800") == "?"


def test_an_event_keeps_its_own_details() -> None:
    details = {"round": 1}
    event = Event("round.opened", "system", details=details)
    details["round"] = 2
    assert event.details == {"round": 1}
    with pytest.raises(TypeError):
        event.details["round"] = 3  # type: ignore[index]


def test_entries_name_the_one_before() -> None:
    first = chain(None, Event("round.opened", "system"), NOW, trail=TRAIL)
    second = chain(first, Event("round.closed", "system"), NOW, trail=TRAIL)
    assert (first.sequence, first.previous_hash) == (1, GENESIS)
    assert (second.sequence, second.previous_hash) == (2, first.hash)
    assert entry_hash(second.to_json(trail=TRAIL)) == second.hash


def test_the_hash_depends_on_every_field_and_on_the_trail() -> None:
    base = chain(None, Event("round.opened", "system"), NOW, trail=TRAIL)
    others = [
        chain(None, Event("round.closed", "system"), NOW, trail=TRAIL),
        chain(None, Event("round.opened", "somebody"), NOW, trail=TRAIL),
        chain(None, Event("round.opened", "system", "a round"), NOW, trail=TRAIL),
        chain(None, Event("round.opened", "system", outcome=Outcome.FAILED), NOW, trail=TRAIL),
        chain(None, Event("round.opened", "system", approval="a"), NOW, trail=TRAIL),
        chain(None, Event("round.opened", "system", request_id="r"), NOW, trail=TRAIL),
        chain(None, Event("round.opened", "system", details={"n": 1}), NOW, trail=TRAIL),
        chain(None, Event("round.opened", "system"), NOW + timedelta(microseconds=1), trail=TRAIL),
        chain(None, Event("round.opened", "system"), NOW, trail="spiffe://trefoil.local/party/1"),
    ]
    assert len({entry.hash for entry in (base, *others)}) == 1 + len(others)


def test_a_moment_counts_and_not_its_zone() -> None:
    event = Event("round.opened", "system")
    elsewhere = NOW.astimezone(timezone(timedelta(hours=9)))
    assert chain(None, event, elsewhere, trail=TRAIL) == chain(None, event, NOW, trail=TRAIL)
    with pytest.raises(ValueError, match="zone"):
        chain(None, event, NOW.replace(tzinfo=None), trail=TRAIL)
