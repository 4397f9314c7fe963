"""Whose word counts, and what is on the disk when."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from libs.core.errors import InvalidInput, PermissionDenied, StorageFull
from libs.mpc.ring import Ring
from libs.rpc.identity import Identity, Kind
from services.smpc_party.adapters.index import AUDIT, Index
from services.smpc_party.adapters.use_index import UseIndex
from services.smpc_party.domain import ModelSpec
from services.smpc_party.model_use import (
    BY_PLAN,
    MAX_ASKERS,
    MAX_RULES,
    Counter,
    HospitalRules,
    ModelUse,
    UseRule,
)
from services.smpc_party.uses import ModelUses
from tests.fakes.audit import unsigned_trail
from tests.fakes.federation import eventually

ALPHA, BETA = (Identity(Kind.HOSPITAL, name) for name in ("alpha", "beta"))
ANN, BOB = (Identity(Kind.CLIENT, name) for name in ("ann", "bob"))
FOR_ANN = ModelUse(askers=frozenset({ANN}))
MODEL = ModelSpec("m", Ring.RING_32, 5, None, frozenset(), b"{}", FOR_ANN, frozenset({ALPHA, BETA}))


class Clock:
    """Stands still."""

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic_s(self) -> float:
        return 0.0


@pytest.fixture
def index(tmp_path: Path) -> UseIndex:
    trail = unsigned_trail(AUDIT)
    return UseIndex(Index(tmp_path / "index.db", trail).engine, trail)


@pytest.fixture
async def uses(index: UseIndex) -> AsyncIterator[ModelUses]:
    uses = ModelUses(store=index, clock=Clock(), flush_every_s=3600.0)
    uses.start()
    yield uses
    await uses.stop()


def allowing(*askers: Identity, revision: int = 1, **fields: Any) -> HospitalRules:
    return HospitalRules(revision, tuple(UseRule(asker, allowed=True, **fields) for asker in askers))


ALL_USES = [
    ModelUse(anyone, frozenset(askers), limit)
    for anyone, askers, limit in itertools.product((False, True), ((), (ANN,), (ANN, BOB)), (0, 1, 2))
]


def named(use: ModelUse) -> str:
    """The same in every process, where a set prints in any order."""
    askers = "+".join(sorted(asker.name for asker in use.askers))
    return f"{'anyone' if use.anyone else askers or 'nobody'}-{askers}-{use.max_predictions}"


@pytest.mark.parametrize("narrow", ALL_USES, ids=named)
def test_a_use_is_within_another_if_nobody_may_ask_more_by_it(narrow: ModelUse) -> None:
    """The oracle: for every client, and one whom nobody named, how often each would let him ask."""

    def most(use: ModelUse, asker: Identity) -> float:
        return (use.max_predictions or float("inf")) if use.allows(asker) else 0

    clients = [ANN, BOB, Identity(Kind.CLIENT, "stranger")]
    for wide in ALL_USES:
        fits = all(most(narrow, client) <= most(wide, client) for client in clients)
        assert narrow.within(wide) == fits, wide


@pytest.mark.parametrize(
    "make",
    [
        lambda: ModelUse(max_predictions=-1),
        lambda: ModelUse(askers=frozenset(Identity(Kind.CLIENT, f"c{i}") for i in range(MAX_ASKERS + 1))),
        lambda: UseRule(ANN, allowed=True, max_predictions=-1),
        lambda: UseRule(ANN, allowed=True, expires_at_s=-1),
        lambda: HospitalRules(0, ()),
        lambda: HospitalRules(1 << 63, ()),
        lambda: HospitalRules(1, (UseRule(None, allowed=True), UseRule(None, allowed=False))),
        lambda: allowing(*(Identity(Kind.CLIENT, f"c{i}") for i in range(MAX_RULES + 1))),
    ],
)
def test_what_makes_no_sense_cannot_be_written(make: Any) -> None:
    with pytest.raises(InvalidInput):
        make()


async def test_what_is_not_limited_is_written_by_and_by(index: UseIndex) -> None:
    uses = ModelUses(store=index, clock=Clock(), flush_every_s=0.01)
    uses.start()
    assert not await uses.charge(MODEL, ANN, images=3)
    assert not index.load("m")[1]
    await eventually(lambda: index.load("m")[1])
    assert index.load("m")[1] == {BY_PLAN: 3, Counter.of_asker(ANN): 3}
    await uses.stop()
    assert index.load("m")[1] == {BY_PLAN: 3, Counter.of_asker(ANN): 3}


async def test_a_full_disk_loses_no_count_and_lets_nobody_in_under_a_limit(
    uses: ModelUses, index: UseIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise StorageFull("This party's disk is full.")

    await uses.charge(MODEL, ANN, images=3)
    with monkeypatch.context() as patch:
        patch.setattr(index, "count", full)
        await uses._flush()
        await uses.set_rules(MODEL, ALPHA, allowing(ANN, max_predictions=5))
        with pytest.raises(StorageFull):
            await uses.charge(MODEL, ANN, images=1)
    await uses._flush()
    assert index.load("m")[1][Counter.of_asker(ANN)] == 3


async def test_a_hospital_that_hangs_up_has_changed_memory_and_disk_alike(
    uses: ModelUses, index: UseIndex, monkeypatch: pytest.MonkeyPatch
) -> None:
    loop, entered = asyncio.get_running_loop(), asyncio.Event()
    write = index.set_rules

    def slow(*arguments: Any) -> None:
        loop.call_soon_threadsafe(entered.set)
        write(*arguments)

    monkeypatch.setattr(index, "set_rules", slow)
    none_allowed = HospitalRules(1, (UseRule(None, allowed=False),))
    call = asyncio.create_task(uses.set_rules(MODEL, ALPHA, none_allowed))
    await entered.wait()
    call.cancel()
    with pytest.raises(asyncio.CancelledError):
        await call
    await asyncio.gather(*uses._running)
    assert index.load("m")[0] == {ALPHA: none_allowed}
    with pytest.raises(PermissionDenied, match="alpha"):
        await uses.charge(MODEL, ANN, images=1)


async def test_counters_go_with_their_rules(uses: ModelUses, index: UseIndex) -> None:
    """Else a hospital that numbers its approvals would fill the party's disk."""
    for revision in range(1, 6):
        rules = allowing(ANN, revision=revision, max_predictions=9, approval_id=f"a-{revision}")
        await uses.set_rules(MODEL, ALPHA, rules)
        await uses.charge(MODEL, ANN, images=1)
    hospitals = [counter for counter in index.load("m")[1] if counter.hospital]
    assert hospitals == [Counter(ALPHA.uri, ANN.uri, "a-5")]


async def test_changes_of_two_hospitals_at_once_are_both_kept(uses: ModelUses, index: UseIndex) -> None:
    rules = {hospital: allowing(BOB) for hospital in (ALPHA, BETA)}
    await asyncio.gather(*(uses.set_rules(MODEL, hospital, given) for hospital, given in rules.items()))
    assert index.load("m")[0] == rules
    await uses.charge(MODEL, BOB, images=1)


async def test_of_many_changes_at_once_the_newest_stays(uses: ModelUses, index: UseIndex) -> None:
    order = [3, 1, 5, 2, 4]
    await asyncio.gather(*(uses.set_rules(MODEL, ALPHA, allowing(BOB, revision=n)) for n in order))
    assert index.load("m")[0][ALPHA].revision == 5
