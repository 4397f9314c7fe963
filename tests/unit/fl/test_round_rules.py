"""What a plan's rounds hold contributions to."""

from __future__ import annotations

import pytest

from libs.core.errors import InvalidInput
from libs.fl.presets import default_plan
from libs.fl.round_rules import max_norm_of
from libs.fl.strategy_parameters import Strategy
from libs.fl.training_plan import TrainingPlan


def plan(**check: float) -> TrainingPlan:
    base = default_plan(model="small_cnn", image_size=28, images=100).model_dump()
    return TrainingPlan.checked({**base, "contribution_check": check})


def test_norms_are_in_ring_units_and_wider_in_the_first_round_only() -> None:
    wide = plan(max_norm=3.0, first_max_norm=12.0)
    assert [max_norm_of(wide, round_number=number) >> 20 for number in (1, 2, 3)] == [12, 3, 3]
    assert max_norm_of(plan(max_norm=3.0), round_number=1) == 3 << 20
    unchecked = default_plan(model="small_cnn", image_size=28, images=100)
    assert max_norm_of(unchecked.model_copy(update={"contribution_check": None}), round_number=1) == 0


def test_with_fedbn_the_wider_norm_is_the_last_rounds() -> None:
    fedbn = plan(max_norm=3.0, first_max_norm=12.0).model_copy(
        update={"strategy": Strategy.FEDBN, "rounds": 3}
    )
    fedbn = TrainingPlan.checked(fedbn.model_dump())
    assert [max_norm_of(fedbn, round_number=number) >> 20 for number in (1, 2, 3)] == [3, 3, 12]


@pytest.mark.parametrize(
    ("check", "rule"),
    [
        ({"max_norm": 16.0}, "scale_bits"),
        ({"max_norm": 1.0, "first_max_norm": 16.0}, "scale_bits"),
        ({"max_norm": 3.0, "first_max_norm": 2.0}, "at least max_norm"),
        ({"max_norm": 0.0}, "greater than 0"),
    ],
)
def test_norms_that_cannot_be_checked_are_refused(check: dict[str, float], rule: str) -> None:
    with pytest.raises(InvalidInput, match=rule):
        plan(**check)
