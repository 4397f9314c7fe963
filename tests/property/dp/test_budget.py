"""A ledger's arithmetic: exact, monotone, and closed to numbers that are none."""

from __future__ import annotations

import math
from fractions import Fraction
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.core.errors import FailedPrecondition, InvalidInput
from libs.dp.budget import (
    UNBOUNDED,
    Budget,
    Spend,
    epsilon_from,
    epsilon_text,
    remaining,
    require_room,
    total,
    would_exceed,
)
from libs.dp.events import DiscreteLaplace, NoPrivacy, PostProcessing, SampledGaussian
from libs.dp.exact import exact, rounded_up, text_of

amounts = st.fractions(0, 100, max_denominator=10_000)
deltas = st.fractions(0, Fraction(1, 100), max_denominator=10**6)
spends = st.builds(Spend, amounts, deltas)
budgets = st.builds(Budget, amounts, deltas)


def test_a_hundred_times_a_hundredth_is_exactly_one() -> None:
    cent, budget = Spend(exact("0.01")), Budget(Fraction(1))
    assert total([cent] * 100).epsilon == 1
    assert not would_exceed([cent] * 99, cent, budget)
    assert would_exceed([cent] * 100, Spend(Fraction(1, 10**18)), budget)


@given(st.lists(spends, max_size=6), spends, budgets)
def test_one_more_fits_just_when_there_is_room(entries: list[Spend], new: Spend, budget: Budget) -> None:
    spent, left = total(entries), remaining(entries, budget)
    fits = not would_exceed(entries, new, budget)
    within = spent.epsilon <= budget.epsilon and spent.delta <= budget.delta
    assert fits == (within and new.epsilon <= left.epsilon and new.delta <= left.delta)
    if fits:
        require_room(entries, new, budget)
    else:
        with pytest.raises(FailedPrecondition, match="data owner"):
            require_room(entries, new, budget)


@given(st.permutations([Spend(Fraction(k, 7), Fraction(k, 1000)) for k in range(6)]))
def test_the_order_of_entries_does_not_matter(entries: list[Spend]) -> None:
    assert total(entries) == Spend(Fraction(15, 7), Fraction(15, 1000))


@given(st.lists(spends, min_size=1, max_size=40), budgets)
def test_entries_admitted_one_by_one_never_exceed_the_budget(offers: list[Spend], budget: Budget) -> None:
    ledger: list[Spend] = []
    for offer in offers:
        if not would_exceed(ledger, offer, budget):
            ledger.append(offer)
    assert total(ledger).epsilon <= budget.epsilon
    assert total(ledger).delta <= budget.delta
    lefts = [remaining(ledger[:count], budget) for count in range(len(ledger) + 1)]
    assert all(later.epsilon <= earlier.epsilon for earlier, later in pairwise(lefts))


def test_delta_alone_exceeds_a_budget() -> None:
    budget = Budget(Fraction(10), Fraction(1, 1000))
    assert not would_exceed([], Spend(Fraction(1), Fraction(1, 1000)), budget)
    assert would_exceed(
        [Spend(Fraction(1), Fraction(1, 1000))], Spend(Fraction(1), Fraction(1, 10**9)), budget
    )
    assert would_exceed([], Spend(Fraction(1), Fraction(1, 999)), budget)


def test_what_promises_nothing_fits_only_where_nothing_is_limited() -> None:
    unbounded = Spend(UNBOUNDED)
    assert would_exceed([], unbounded, Budget(Fraction(10**6), Fraction(1, 2)))
    assert would_exceed([unbounded], Spend(Fraction(0)), Budget(Fraction(10**6)))
    assert not would_exceed([unbounded], unbounded, Budget(UNBOUNDED))
    assert remaining([unbounded], Budget(Fraction(3))) == Budget(Fraction(0))
    assert remaining([unbounded], Budget(UNBOUNDED)) == Budget(UNBOUNDED)


def test_deltas_that_add_up_to_certainty_promise_nothing() -> None:
    assert total([Spend(Fraction(1), Fraction(1, 2))] * 2) == Spend(UNBOUNDED)


def test_events_become_spends_that_are_never_too_small() -> None:
    delta = Fraction(1, 10_000)
    assert Spend.of(NoPrivacy(), delta=delta) == Spend(UNBOUNDED)
    assert Spend.of(PostProcessing(), delta=delta) == Spend(Fraction(0))
    assert Spend.of(DiscreteLaplace(Fraction(1, 8)), delta=Fraction(0)) == Spend(Fraction(1, 8))
    trained = Spend.of(SampledGaussian(1.0, 0.05, 300), delta=delta)
    assert 5 < trained.epsilon < 10
    assert trained.delta == delta


@pytest.mark.parametrize(
    "values",
    [
        (Fraction(-1), Fraction(0)),
        (Fraction(1), Fraction(-1, 10)),
        (Fraction(1), Fraction(1)),
        (UNBOUNDED, Fraction(-1)),
        (0.5, Fraction(0)),
        (math.nan, Fraction(0)),
        (math.inf, Fraction(0)),
        (Fraction(1), 0.1),
        (1, Fraction(0)),
    ],
)
@pytest.mark.parametrize("kind", [Budget, Spend])
def test_what_is_no_amount_cannot_be_written(
    kind: type[Budget | Spend], values: tuple[object, object]
) -> None:
    with pytest.raises(InvalidInput):
        kind(*values)  # type: ignore[arg-type]


@given(amounts)
def test_amounts_survive_their_text(amount: Fraction) -> None:
    assert exact(text_of(amount)) == amount
    assert epsilon_from(epsilon_text(amount)) == amount
    assert epsilon_from(epsilon_text(UNBOUNDED)) is UNBOUNDED


@pytest.mark.parametrize(
    "text",
    [
        "",
        "-1",
        "+1",
        "nan",
        "inf",
        "1e3",
        "1/0",
        " 1",
        "1 ",
        "1.",
        ".5",
        "1/-2",
        "٣",
        "1_000",
        "0x1",
        "9" * 50,
    ],
)
def test_texts_that_are_no_amounts_are_refused(text: str) -> None:
    with pytest.raises(InvalidInput):
        exact(text)


@given(st.floats(0, 1e6))
def test_floats_are_rounded_up_to_a_millionth(value: float) -> None:
    booked = rounded_up(value)
    assert 0 <= booked - Fraction(value) < Fraction(1, 10**6)
    assert (booked * 10**6).denominator == 1


@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, -1e-9])
def test_floats_that_are_no_amounts_are_refused(value: float) -> None:
    with pytest.raises(InvalidInput):
        rounded_up(value)
