from __future__ import annotations

from fractions import Fraction

import pytest

from libs.core.errors import InvalidInput
from libs.fl.strategies.registry import STRATEGIES, strategy


def test_fedavg_counts_every_image_once() -> None:
    assert strategy("fedavg").weights({"a": 1, "b": 3}) == {"a": Fraction(1, 4), "b": Fraction(3, 4)}


def test_an_unknown_strategy_is_refused_with_the_known_ones() -> None:
    with pytest.raises(InvalidInput, match="fedavg"):
        strategy("median")


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@pytest.mark.parametrize("samples", [{}, {"a": 0, "b": 2}])
def test_a_round_without_images_is_refused(name: str, samples: dict[str, int]) -> None:
    with pytest.raises(InvalidInput):
        STRATEGIES[name].weights(samples)


@pytest.mark.parametrize("name", sorted(STRATEGIES))
@pytest.mark.parametrize("survivors", [[], ["stranger"]])
def test_survivors_are_participants(name: str, survivors: list[str]) -> None:
    weights = {"a": Fraction(1, 2), "b": Fraction(1, 2)}
    with pytest.raises(InvalidInput):
        STRATEGIES[name].rescaling(weights, survivors)


def test_a_survivor_that_is_named_twice_counts_once() -> None:
    weights = {"a": Fraction(1, 2), "b": Fraction(1, 2)}
    assert STRATEGIES["fedavg"].rescaling(weights, ["a", "a"]) == 2
