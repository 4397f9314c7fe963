"""What the parties can do is add; these are the properties that make their sum the right mean."""

from __future__ import annotations

from fractions import Fraction

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.core.errors import InvalidInput
from libs.fl.strategies.registry import STRATEGIES, strategy_of
from libs.fl.strategies.strategy import rescaling
from libs.fl.strategy_parameters import Strategy as Name
from libs.fl.update_encoding import decode_vector, encode_update, encode_weights, weigh_encoded
from libs.mpc.fixed_point import PIECE_ELEMENTS, FixedPoint
from libs.mpc.ring import Ring
from tests.fakes.strategy_plans import plan_with

BOUND = 64.0
LENGTH = 5

scale_bits = st.integers(8, 23)
counts = st.lists(st.integers(1, 100_000), min_size=1, max_size=8)
values = st.floats(-BOUND, BOUND, allow_nan=False, width=32)


@st.composite
def rounds(draw: st.DrawFn) -> tuple[list[npt.NDArray[np.float32]], list[Fraction], int]:
    """Updates, their weights, and a scale."""
    images = draw(counts)
    updates = [np.array(draw(st.lists(values, min_size=LENGTH, max_size=LENGTH)), np.float32) for _ in images]
    return updates, [Fraction(count, sum(images)) for count in images], draw(scale_bits)


def ring_sum(vectors: list[npt.NDArray[np.uint32]]) -> npt.NDArray[np.uint32]:
    return np.sum(np.stack(vectors), axis=0, dtype=np.uint32)


@given(rounds())
@settings(max_examples=60)
def test_the_sum_of_encoded_weighted_updates_is_the_weighted_mean_within_half_an_ulp_per_hospital(
    a_round: tuple[list[npt.NDArray[np.float32]], list[Fraction], int],
) -> None:
    updates, weights, bits = a_round
    encoded = [
        encode_update(u, weight=w, scale_bits=bits, bound=BOUND)
        for u, w in zip(updates, weights, strict=True)
    ]
    pairs = list(zip(updates, weights, strict=True))
    exact = [sum(w * Fraction(float(u[i])) for u, w in pairs) for i in range(LENGTH)]
    got = decode_vector(ring_sum(encoded), scale_bits=bits)
    # A double's own rounding comes on top of the half ulp; it is far below it.
    allowed = Fraction(len(updates), 2) * (1 + Fraction(1, 2**20)) / 2**bits
    assert all(abs(Fraction(float(g)) - e) <= allowed for g, e in zip(got, exact, strict=True))


@given(rounds(), st.randoms(use_true_random=False))
@settings(max_examples=30)
def test_the_order_of_hospitals_does_not_matter(
    a_round: tuple[list[npt.NDArray[np.float32]], list[Fraction], int], random: object
) -> None:
    updates, weights, bits = a_round
    encoded = [
        encode_update(u, weight=w, scale_bits=bits, bound=BOUND)
        for u, w in zip(updates, weights, strict=True)
    ]
    shuffled = list(encoded)
    random.shuffle(shuffled)  # type: ignore[attr-defined]
    assert np.array_equal(ring_sum(encoded), ring_sum(shuffled))


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@given(images=counts, update=st.lists(values, min_size=1, max_size=6), bits=scale_bits)
@settings(max_examples=40)
def test_the_mean_of_equal_updates_is_that_update(
    name: Name, images: list[int], update: list[float], bits: int
) -> None:
    weights = strategy_of(plan_with(name)).weights({f"h{i}": count for i, count in enumerate(images)})
    vector = np.array(update, np.float32)
    encoded = [encode_update(vector, weight=w, scale_bits=bits, bound=BOUND) for w in weights.values()]
    got = decode_vector(ring_sum(encoded), scale_bits=bits)
    assert np.abs(got - vector).max() <= len(images) / 2 / 2**bits * (1 + 2**-20)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@given(images=counts, chosen=st.data())
@settings(max_examples=40)
def test_weights_sum_to_one_and_rescaling_makes_the_survivors_weights_sum_to_one(
    name: Name, images: list[int], chosen: st.DataObject
) -> None:
    weights = strategy_of(plan_with(name)).weights({f"h{i}": count for i, count in enumerate(images)})
    assert sum(weights.values()) == 1
    survivors = chosen.draw(st.sets(st.sampled_from(sorted(weights)), min_size=1))
    ratio = rescaling(weights, survivors)
    assert sum(weights[s] * ratio for s in survivors) == 1


@given(vector=st.lists(st.floats(-1000, 1000, width=32), min_size=1, max_size=6), bits=st.integers(8, 20))
def test_weights_come_back_within_half_an_ulp(vector: list[float], bits: int) -> None:
    weights = np.array(vector, np.float32)
    got = decode_vector(encode_weights(weights, scale_bits=bits), scale_bits=bits)
    assert np.abs(got - weights).max() <= 0.5 / 2**bits


@pytest.mark.parametrize("ring", list(Ring))
@given(images=counts, data=st.data())
@settings(max_examples=40)
def test_weighing_integers_sums_to_the_vector_within_half_a_unit_per_hospital(
    ring: Ring, images: list[int], data: st.DataObject
) -> None:
    limit = 2 ** (ring.bits - 2) - 1
    signed = data.draw(st.lists(st.integers(-limit, limit), min_size=1, max_size=5))
    vector = np.array(signed, ring.signed_dtype).view(ring.dtype)
    parts = [weigh_encoded(vector, weight=Fraction(count, sum(images))) for count in images]
    total = np.sum(np.stack(parts), axis=0, dtype=ring.dtype).view(ring.signed_dtype)
    assert all(2 * abs(int(t) - s) <= len(images) for t, s in zip(total, signed, strict=True))


@given(value=st.floats(allow_nan=True, allow_infinity=True, width=32), bits=scale_bits)
def test_what_is_beyond_the_bound_or_no_number_is_refused(value: float, bits: int) -> None:
    vector = np.array([0.0, value], np.float32)
    if abs(value) <= BOUND:
        encode_update(vector, weight=Fraction(1), scale_bits=bits, bound=BOUND)
        return
    with pytest.raises(InvalidInput):
        encode_update(vector, weight=Fraction(1, 3), scale_bits=bits, bound=BOUND)


@pytest.mark.parametrize("bad", [BOUND * 1.01, -BOUND * 1.01, np.nan, np.inf])
@pytest.mark.parametrize("place", [0, PIECE_ELEMENTS, 2 * PIECE_ELEMENTS])
def test_no_piece_of_a_long_update_goes_unchecked(place: int, bad: float) -> None:
    vector = np.zeros(2 * PIECE_ELEMENTS + 1, np.float32)
    vector[place] = bad
    with pytest.raises(InvalidInput, match=r"range|finite"):
        encode_update(vector, weight=Fraction(1, 3), scale_bits=16, bound=BOUND)


@pytest.mark.parametrize(("bits", "bound"), [(20, 1024.0), (24, 64.0), (20, 0.0), (20, float("nan"))])
def test_a_bound_whose_encoding_could_wrap_is_refused(bits: int, bound: float) -> None:
    with pytest.raises(InvalidInput, match="update_bound"):
        encode_update(np.zeros(3, np.float32), weight=Fraction(1, 2), scale_bits=bits, bound=bound)


@pytest.mark.parametrize("weight", [Fraction(0), Fraction(-1, 2), Fraction(3, 2), Fraction(1, 2**31)])
def test_a_weight_that_is_no_part_of_a_whole_is_refused(weight: Fraction) -> None:
    with pytest.raises(InvalidInput, match="weight"):
        encode_update(np.zeros(3, np.float32), weight=weight, scale_bits=16, bound=1.0)
    with pytest.raises(InvalidInput, match="weight"):
        weigh_encoded(np.zeros(3, np.uint32), weight=weight)


def test_model_weights_that_do_not_fit_are_refused() -> None:
    with pytest.raises(InvalidInput, match="beyond"):
        encode_weights(np.array([1024.0], np.float32), scale_bits=20)
    with pytest.raises(InvalidInput, match="finite"):
        encode_weights(np.array([np.nan], np.float32), scale_bits=20)


def test_encoding_agrees_with_the_rings_fixed_point() -> None:
    vector = np.array([0.5, -0.25, 3.0], np.float32)
    expected = FixedPoint(Ring.RING_32, Fraction(2**10, 3)).encode(vector)
    got = encode_update(vector, weight=Fraction(1, 3), scale_bits=10, bound=4.0)
    assert np.array_equal(got, expected)
