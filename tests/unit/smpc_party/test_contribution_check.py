"""What a party computes of the contributions it holds: their sum, and what is checked of each."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from fractions import Fraction
from typing import cast

import pytest

from libs.mpc.norm_bound import NormBound
from libs.mpc.norm_check import check_cost
from libs.mpc.prg import random_ring
from libs.mpc.ring import Ring, RingArray
from libs.mpc.sketch import SKETCH_LENGTH, sketch
from libs.rpc.identity import Identity, Kind
from services.smpc_party import contribution_check
from services.smpc_party.agreement import Compute, FallShort, decide_after_check
from services.smpc_party.contribution_check import (
    add_up,
    add_up_and_sketch,
    bounds_of,
    check_bytes,
    take_off,
)
from services.smpc_party.domain import Form, Participant, RoundKey, RoundSpec, StoredShare
from services.smpc_party.ports import Shares

HOSPITALS = tuple(Identity(Kind.HOSPITAL, name) for name in ("alpha", "beta", "gamma"))
WEIGHTS = (Fraction(1, 2), Fraction(1, 3), Fraction(1, 6))
SPEC = RoundSpec(
    key=RoundKey("s", 1),
    ring=Ring.RING_32,
    update_length=50,
    metrics_length=7,
    participants=tuple(Participant(h, w) for h, w in zip(HOSPITALS, WEIGHTS, strict=True)),
    quorum=2,
    base_model_id="",
    result_model_id="s/round-1",
    readers=frozenset(),
    metrics_readers=frozenset(),
    plan=b"",
    max_norm=1 << 20,
)


class InPieces:
    """Shares that come in pieces of one size, read-only as from the disk."""

    def __init__(self, vectors: dict[str, RingArray], size: int) -> None:
        self._vectors, self._size = vectors, size
        self.read: list[str] = []

    def pieces(self, share: StoredShare) -> Iterator[RingArray]:
        self.read.append(share.name)
        vector = self._vectors[share.name]
        for start in range(0, len(vector), self._size):
            piece = vector[start : start + self._size].view()
            piece.flags.writeable = False
            yield piece


@pytest.fixture
def vectors() -> dict[str, RingArray]:
    return {name: random_ring((SPEC.length,), SPEC.ring) for name in "abc"}


CHOSEN = [StoredShare(name, "c", Form.VECTOR, Ring.RING_32, SPEC.length, 0) for name in "abc"]


@pytest.mark.parametrize("at_once", [1, 2, 8])
@pytest.mark.parametrize("size", [1, 7, 49, 50, 51, 56, 57, 1000])
def test_sum_sketches_and_metrics_are_the_same_however_shares_are_cut(
    vectors: dict[str, RingArray], size: int, at_once: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contribution_check, "SIDE_BY_SIDE", at_once)
    shares, seed = InPieces(vectors, size), bytes(range(16))
    total, checked = add_up_and_sketch(cast(Shares, shares), SPEC, CHOSEN, seed)
    assert shares.read == ["a", "b", "c"], "each is read once"
    assert (total == sum(vectors.values())).all()
    assert (total == add_up(cast(Shares, shares), SPEC, CHOSEN)).all()
    for row, vector in zip(checked, vectors.values(), strict=True):
        assert (row[:SKETCH_LENGTH] == sketch(vector[:50], seed)).all()
        assert (row[SKETCH_LENGTH:] == vector[50:]).all()
    take_off(cast(Shares, shares), total, CHOSEN[1:])
    assert (total == vectors["a"]).all()


def test_a_round_without_metrics_is_sketched_whole(vectors: dict[str, RingArray]) -> None:
    spec = replace(SPEC, update_length=57, metrics_length=0)
    _, checked = add_up_and_sketch(cast(Shares, InPieces(vectors, 10)), spec, CHOSEN, bytes(16))
    assert checked.shape == (3, SKETCH_LENGTH)
    assert (checked[2] == sketch(vectors["c"], bytes(16))).all()


def test_each_hospital_is_held_to_its_weight() -> None:
    bounds = bounds_of(SPEC, HOSPITALS[1:])
    assert bounds == [NormBound.of(max_norm=1 << 20, weight=w, length=50) for w in WEIGHTS[1:]]
    assert bounds[0].norm > bounds[1].norm


def test_a_check_has_its_own_allowance_of_bytes() -> None:
    assert check_bytes(replace(SPEC, max_norm=0)) == 0
    assert check_bytes(SPEC) > check_cost(3, 7).dealt_bytes + check_cost(3, 7).online_bytes


@pytest.mark.parametrize(
    ("accepted", "decision"),
    [
        ((True, True, True), Compute(HOSPITALS)),
        ((True, False, True), Compute((HOSPITALS[0], HOSPITALS[2]), (HOSPITALS[1],))),
        ((False, False, True), FallShort((HOSPITALS[2],), HOSPITALS[:2])),
        ((False, False, False), FallShort((), HOSPITALS)),
    ],
)
def test_the_quorum_is_counted_again_after_the_check(
    accepted: tuple[bool, ...], decision: Compute | FallShort
) -> None:
    assert decide_after_check(SPEC, HOSPITALS, accepted) == decision


def test_the_rules_of_a_round_survive_the_disk() -> None:
    assert RoundSpec.from_json(SPEC.to_json()) == SPEC
