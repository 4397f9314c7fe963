from __future__ import annotations

from fractions import Fraction
from typing import Any

import numpy as np
import pytest

from libs.core.errors import InvalidInput
from libs.mpc.fixed_point import PIECE_ELEMENTS, FixedPoint
from libs.mpc.prg import PairKey, random_ring
from libs.mpc.ring import Ring
from libs.mpc.schemes.additive import sharing
from libs.mpc.schemes.additive.sharing import SeedShare, VectorShare, join, split_compressed
from libs.mpc.schemes.masked.roles import Evaluator, Roles


@pytest.mark.parametrize("length", [1, 1001, 2 * sharing.PIECE_ELEMENTS + 3])
@pytest.mark.parametrize("ring", list(Ring))
def test_three_compressed_shares_join_to_the_vector(ring: Ring, length: int) -> None:
    vector = random_ring((length,), ring)
    shares = split_compressed(vector, ring)
    assert sorted(type(s).__name__ for s in shares) == ["SeedShare", "SeedShare", "VectorShare"]
    assert (join([s.expand(length, ring) for s in shares]) == vector).all()


def test_two_splits_of_one_vector_share_nothing() -> None:
    vector = np.zeros(64, np.uint32)
    first, second = (split_compressed(vector, Ring.RING_32) for _ in range(2))
    seeds = [s.seed for s in (*first, *second) if isinstance(s, SeedShare)]
    assert len(set(seeds)) == 4


def test_every_party_gets_the_vector_sometimes() -> None:
    vector = np.zeros(4, np.uint32)
    places = {
        [isinstance(s, VectorShare) for s in split_compressed(vector, Ring.RING_32)].index(True)
        for _ in range(100)
    }
    assert places == {0, 1, 2}


def test_shares_do_not_print_their_values() -> None:
    shares = split_compressed(np.arange(3, dtype=np.uint32), Ring.RING_32)
    assert all("redacted" in repr(s) for s in shares)


def test_shares_of_different_vectors_are_not_joined() -> None:
    with pytest.raises(InvalidInput):
        join([np.zeros(3, np.uint32), np.zeros(3, np.uint32), np.zeros(4, np.uint32)])
    with pytest.raises(InvalidInput):
        join([np.zeros(3, np.uint32), np.zeros(3, np.uint32)])


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf, 1e9, -1e9])
def test_what_cannot_be_encoded_is_refused(bad: float) -> None:
    code = FixedPoint(Ring.RING_32, Fraction(1 << 12))
    for place in (1, 2 * PIECE_ELEMENTS):
        values = np.full(2 * PIECE_ELEMENTS + 1, 0.5)
        values[place] = bad
        with pytest.raises(InvalidInput):
            code.encode(values)


def test_an_encoding_without_integer_part_is_refused() -> None:
    with pytest.raises(InvalidInput):
        FixedPoint(Ring.RING_32, Fraction(1 << 31))


@pytest.mark.parametrize("ring", list(Ring))
@pytest.mark.parametrize("kind", [np.float32, np.float64])
def test_encoding_in_pieces_is_the_formula(ring: Ring, kind: type[np.floating[Any]]) -> None:
    scale, size = Fraction(1 << 20, 3), 2 * PIECE_ELEMENTS + 10
    values = np.random.default_rng(0).uniform(-1000, 1000, size).astype(kind).reshape(2, -1).T
    expected = np.rint(values.astype(np.float64) * float(scale)).astype(np.int64).astype(ring.dtype)
    np.testing.assert_array_equal(FixedPoint(ring, scale).encode(values), expected)


def test_encoding_rounds_to_the_nearest() -> None:
    code = FixedPoint(Ring.RING_32, Fraction(4))
    assert code.decode(code.encode([0.3, -0.3, -100.0])).tolist() == [0.25, -0.25, -100.0]


def test_a_dealer_cannot_evaluate() -> None:
    roles = Roles.rotated(0)
    with pytest.raises(InvalidInput):
        Evaluator.of(roles.dealer, roles, PairKey(bytes(32)).for_computation("c"))


def test_roles_are_three_different_parties_and_rotate_evenly() -> None:
    with pytest.raises(InvalidInput):
        Roles(Roles.rotated(0).first, Roles.rotated(0).first, Roles.rotated(0).second)
    assert {Roles.rotated(t).dealer for t in range(3)} == {0, 1, 2}
