"""Closing a round: the three parties decide alike, and no death in between splits them."""

from __future__ import annotations

import itertools
from dataclasses import replace
from fractions import Fraction
from typing import Any

import pytest

from libs.core.errors import PeerViolation
from libs.core.ids import PARTIES
from libs.mpc.lockstep import run_lockstep
from libs.mpc.ring import Ring
from libs.rpc.identity import Identity, Kind
from services.smpc_party.agreement import (
    NOTHING,
    Adopt,
    Compute,
    FallShort,
    Status,
    confirm_prepared,
    decide,
    digest,
    exchange_status,
)
from services.smpc_party.domain import Participant, RoundKey, RoundSpec

HOSPITALS = tuple(Identity(Kind.HOSPITAL, name) for name in ("alpha", "beta", "gamma"))
SPEC = RoundSpec(
    key=RoundKey("s", 1),
    ring=Ring.RING_32,
    update_length=4,
    metrics_length=0,
    participants=tuple(Participant(h, Fraction(1, 3)) for h in HOSPITALS),
    quorum=2,
    base_model_id="",
    result_model_id="s/round-1",
    readers=frozenset(),
    metrics_readers=frozenset(),
    plan=b"",
)
A, B, C = (digest(f"upload-{name}") for name in "abc")
X, Y = digest("attempt-x"), digest("attempt-y")
FULL = Status(NOTHING, NOTHING, (A, B, C))


def three(*statuses: Status) -> dict[Any, Status]:
    return dict(zip(PARTIES, statuses, strict=True))


def test_complete_everywhere_counts() -> None:
    assert decide(SPEC, three(FULL, FULL, FULL)) == Compute(HOSPITALS)


@pytest.mark.parametrize("other", [NOTHING, digest("another-upload")])
@pytest.mark.parametrize("party", PARTIES)
def test_what_one_party_lacks_or_holds_from_another_upload_does_not_count(party: int, other: bytes) -> None:
    statuses = [FULL, FULL, FULL]
    statuses[party] = replace(FULL, uploads=(A, other, C))
    assert decide(SPEC, three(*statuses)) == Compute((HOSPITALS[0], HOSPITALS[2]))


def test_fewer_than_the_quorum_fall_short() -> None:
    one = replace(FULL, uploads=(A, NOTHING, NOTHING))
    assert decide(SPEC, three(FULL, FULL, one)) == FallShort((HOSPITALS[0],))
    none = replace(FULL, uploads=(NOTHING,) * 3)
    assert decide(SPEC, three(none, none, none)) == FallShort(())


@pytest.mark.parametrize("party", PARTIES)
def test_what_one_party_committed_the_others_adopt(party: int) -> None:
    statuses = [replace(FULL, prepared=X)] * 3
    statuses[party] = replace(FULL, prepared=X, committed=X)
    assert decide(SPEC, three(*statuses)) == Adopt(X)


def test_what_one_party_committed_is_never_computed_afresh() -> None:
    """Not even if the others lost it, which cannot happen: they find out and say so instead."""
    committed = replace(FULL, prepared=X, committed=X)
    assert decide(SPEC, three(committed, FULL, FULL)) == Adopt(X)


def test_what_all_prepared_is_adopted() -> None:
    prepared = replace(FULL, prepared=X)
    assert decide(SPEC, three(prepared, prepared, prepared)) == Adopt(X)


@pytest.mark.parametrize("other", [NOTHING, Y])
@pytest.mark.parametrize("party", PARTIES)
def test_what_not_all_prepared_is_computed_afresh(party: int, other: bytes) -> None:
    statuses = [replace(FULL, prepared=X)] * 3
    statuses[party] = replace(FULL, prepared=other)
    assert decide(SPEC, three(*statuses)) == Compute(HOSPITALS)


def test_everybody_learns_the_same_three_statuses() -> None:
    mine = three(FULL, replace(FULL, prepared=X), replace(FULL, uploads=(A, NOTHING, C)))
    results, transcript = run_lockstep({p: exchange_status(p, mine[p]) for p in PARTIES})
    assert all(result == mine for result in results.values())
    assert set(transcript.rounds.values()) == {1}


def test_another_attempts_confirmation_is_a_violation() -> None:
    ids = {PARTIES[0]: "close-1", PARTIES[1]: "close-1", PARTIES[2]: "close-2"}
    with pytest.raises(PeerViolation, match="another attempt"):
        run_lockstep({p: confirm_prepared(p, ids[p]) for p in PARTIES})


class ModelParty:
    """A party's disk, and nothing else: what survives its death."""

    def __init__(self) -> None:
        self.prepared = self.committed = NOTHING

    @property
    def status(self) -> Status:
        return Status(self.committed, self.prepared, (A, B, C))


STEPS = ("status", "prepare", "confirm", "commit")


def attempt(parties: list[ModelParty], name: bytes, deaths: dict[int, int]) -> None:
    """One attempt in which party p dies just before step `deaths[p]`.

    Nobody gets beyond an exchange that needs a dead party's message.
    """
    dead_before = [deaths.get(p, len(STEPS)) for p in range(3)]
    if min(dead_before) <= STEPS.index("status"):
        return
    decision = decide(SPEC, three(*(party.status for party in parties)))
    if isinstance(decision, Adopt):
        for p, party in enumerate(parties):
            if dead_before[p] > STEPS.index("commit"):
                assert party.prepared == decision.attempt, "adopted what it never prepared"
                party.committed = decision.attempt
        return
    for p, party in enumerate(parties):
        if dead_before[p] > STEPS.index("prepare"):
            assert party.committed == NOTHING, "a committed result was replaced"
            party.prepared = name
    if min(dead_before) <= STEPS.index("confirm"):
        return
    for p, party in enumerate(parties):
        if dead_before[p] > STEPS.index("commit"):
            party.committed = name


def test_no_deaths_in_two_attempts_leave_two_results() -> None:
    """Every combination of deaths in two attempts, then one attempt that goes through."""
    moments = range(len(STEPS) + 1)
    for first in itertools.product(moments, repeat=3):
        for second in itertools.product(moments, repeat=3):
            parties = [ModelParty() for _ in PARTIES]
            attempt(parties, X, dict(enumerate(first)))
            attempt(parties, Y, dict(enumerate(second)))
            attempt(parties, digest("attempt-z"), {})
            assert len({party.committed for party in parties}) == 1
            assert parties[0].committed != NOTHING
