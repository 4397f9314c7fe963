from __future__ import annotations

from fractions import Fraction

import pytest

from libs.core.errors import InvalidInput
from libs.fl.strategies.registry import STRATEGIES, strategy_of
from libs.fl.strategies.strategy import rescaling
from libs.fl.strategy_parameters import Strategy as Name
from tests.fakes.strategy_plans import plan_with

HALVES = {"a": Fraction(1, 2), "b": Fraction(1, 2)}


def test_every_strategy_that_a_plan_can_name_exists() -> None:
    assert set(STRATEGIES) == set(Name)


def test_fedavg_counts_every_image_once() -> None:
    fedavg = strategy_of(plan_with(Name.FEDAVG))
    assert fedavg.weights({"a": 1, "b": 3}) == {"a": Fraction(1, 4), "b": Fraction(3, 4)}


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@pytest.mark.parametrize("samples", [{}, {"a": 0, "b": 2}])
def test_a_round_without_images_is_refused(name: Name, samples: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        strategy_of(plan_with(name)).weights(samples)


@pytest.mark.parametrize("survivors", [[], ["stranger"]])
def test_survivors_are_participants(survivors: list[str]) -> None:
    with pytest.raises(InvalidInput):
        rescaling(HALVES, survivors)


def test_a_survivor_that_is_named_twice_counts_once() -> None:
    assert rescaling(HALVES, ["a", "a"]) == 2
