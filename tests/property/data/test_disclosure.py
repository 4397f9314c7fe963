"""Disclosed counts: whatever the numbers are."""

from hypothesis import given
from hypothesis import strategies as st

from libs.data.disclosure import BUCKET, CountDisclosure, disclose, disclosed_again

COUNTS = st.dictionaries(st.sampled_from(["NORMAL", "PNEUMONIA", "OTHER"]), st.integers(0, 10**6), min_size=1)
NUMBERS = st.integers(0, 10**6)


@given(COUNTS, NUMBERS, COUNTS, NUMBERS)
def test_withheld_says_nothing(one: dict[str, int], a: int, other: dict[str, int], b: int) -> None:
    first = disclose(one, patients=a, policy=CountDisclosure.WITHHELD)
    assert first == disclose(other, patients=b, policy=CountDisclosure.WITHHELD)
    assert (first.images, first.patients, first.images_per_class, first.about_images) == (None, None, {}, 0)


@given(COUNTS, NUMBERS, st.data())
def test_rounded_says_the_same_of_all_counts_in_the_same_tens(
    counts: dict[str, int], patients: int, data: st.DataObject
) -> None:
    def another(count: int) -> int:
        return count - count % BUCKET + data.draw(st.integers(0, BUCKET - 1))

    others = {name: another(count) for name, count in counts.items()}
    first = disclose(counts, patients=patients, policy=CountDisclosure.ROUNDED)
    second = disclose(others, patients=another(patients), policy=CountDisclosure.ROUNDED)
    assert first == second
    assert first.about_images == second.about_images


@given(COUNTS, NUMBERS, st.sampled_from([CountDisclosure.EXACT, CountDisclosure.ROUNDED]))
def test_what_is_said_is_true(counts: dict[str, int], patients: int, policy: CountDisclosure) -> None:
    said = disclose(counts, patients=patients, policy=policy)
    assert said.images is not None
    assert said.patients is not None
    assert said.images.low <= sum(counts.values()) <= said.images.high
    assert said.patients.low <= patients <= said.patients.high
    for name, count in counts.items():
        assert said.images_per_class[name].low <= count <= said.images_per_class[name].high


@given(COUNTS, st.sampled_from([CountDisclosure.EXACT, CountDisclosure.ROUNDED]))
def test_the_smallest_numbers_give_the_ranges_back(counts: dict[str, int], policy: CountDisclosure) -> None:
    said = disclose(counts, patients=0, policy=policy).images_per_class
    assert disclosed_again(policy, {name: count.low for name, count in said.items()}) == said
