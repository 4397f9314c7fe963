from __future__ import annotations

import pytest

from libs.fl.strategies.sampling import sampled

MANY = frozenset(f"hospital-{i}" for i in range(20))


def draw(number: int = 1, **changes: object) -> frozenset[str]:
    arguments = {"fraction": 0.25, "quorum": 2, "seed": 1, "round_number": number, **changes}
    return sampled(MANY, **arguments)  # type: ignore[arg-type]


def test_the_same_round_draws_the_same_hospitals_and_others_draw_others() -> None:
    assert draw() == draw()
    assert len({draw(number) for number in range(1, 9)}) == 8
    assert draw(seed=2) != draw()


@pytest.mark.parametrize(
    ("fraction", "quorum", "count"), [(0.25, 2, 5), (0.26, 2, 6), (0.05, 3, 3), (1.0, 2, 20), (0.3, 2, 6)]
)
def test_a_fraction_is_rounded_up_and_never_below_the_quorum(
    fraction: float, quorum: int, count: int
) -> None:
    assert len(draw(fraction=fraction, quorum=quorum)) == count


def test_over_many_rounds_everybody_is_drawn_about_as_often() -> None:
    times = [sum(hospital in draw(number) for number in range(100)) for hospital in MANY]
    assert 8 < min(times) <= max(times) < 42  # 25 each, standard deviation 4.3


def test_those_that_could_not_contribute_come_last() -> None:
    first = draw()
    assert not first & draw(after=first)
    assert sampled(first, fraction=1, quorum=1, seed=1, round_number=1, after=first) == first
