"""What an owner lets others know of the numbers."""

import pytest

from libs.core.errors import InvalidInput
from libs.data.disclosure import CountDisclosure, DisclosedCount, disclose

CASES = [
    (CountDisclosure.EXACT, {"a": 3, "b": 128}, ["3", "128"], "131", 131),
    (CountDisclosure.ROUNDED, {"a": 3, "b": 128}, ["<10", "120 to 129"], "120 to 138", 130),
    (CountDisclosure.ROUNDED, {"a": 0, "b": 9}, ["<10", "<10"], "<19", 10),
    (CountDisclosure.ROUNDED, {"a": 10, "b": 19}, ["10 to 19", "10 to 19"], "20 to 38", 30),
    (CountDisclosure.WITHHELD, {"a": 3, "b": 128}, [], "None", 0),
]


@pytest.mark.parametrize(("policy", "counts", "classes", "total", "about"), CASES)
def test_counts_are_told_as_the_owner_chooses(
    policy: CountDisclosure, counts: dict[str, int], classes: list[str], total: str, about: int
) -> None:
    said = disclose(counts, patients=50, policy=policy)
    assert [str(count) for count in said.images_per_class.values()] == classes
    assert (str(said.images), said.about_images) == (total, about)


def test_counts_below_zero_and_empty_ranges_are_refused() -> None:
    with pytest.raises(InvalidInput):
        disclose({"a": -1}, patients=0, policy=CountDisclosure.ROUNDED)
    for low, high in ((2, 1), (-1, 3)):
        with pytest.raises(InvalidInput):
            DisclosedCount(low, high)
