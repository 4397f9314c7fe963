"""Weights where some hospitals withhold how many images they have (0)."""

from __future__ import annotations

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from libs.core.errors import InvalidInput
from libs.fl.strategies.registry import STRATEGIES, strategy_of
from libs.fl.strategies.withheld import counted
from tests.fakes.strategy_plans import plan_with

TOLD = st.integers(min_value=1, max_value=10**12)
SAMPLES = st.dictionaries(st.text(max_size=3), st.one_of(st.just(0), TOLD), min_size=1, max_size=12)


@given(SAMPLES)
def test_who_tells_counts_as_told_and_who_withholds_as_their_mean(samples: dict[str, int]) -> None:
    told = [count for count in samples.values() if count]
    for participant, count in counted(samples).items():
        if samples[participant]:
            assert count == samples[participant]
        elif told:
            assert abs(Fraction(sum(told), len(told)) - count) <= Fraction(1, 2)
            assert min(told) <= count <= max(told)


@given(SAMPLES)
def test_every_strategy_takes_what_is_counted(samples: dict[str, int]) -> None:
    for name in STRATEGIES:
        weights = strategy_of(plan_with(name)).weights(counted(samples))
        assert sum(weights.values()) == 1
        assert all(weight > 0 for weight in weights.values())
        assert len({weights[name] for name, count in samples.items() if not count}) <= 1


@given(st.sets(st.text(max_size=3), min_size=1, max_size=12))
def test_where_nobody_tells_all_count_the_same(names: set[str]) -> None:
    assert set(counted(dict.fromkeys(names, 0)).values()) == {1}


def test_half_an_image_is_rounded_up() -> None:
    assert counted({"a": 1, "b": 2, "c": 0}) == {"a": 1, "b": 2, "c": 2}


def test_a_negative_number_is_refused() -> None:
    with pytest.raises(InvalidInput, match="negative"):
        counted({"a": -1})
