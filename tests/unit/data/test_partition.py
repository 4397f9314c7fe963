"""Dividing images between hospitals and into two sides of a split."""

import numpy as np
import pytest

from libs.core.errors import InvalidInput
from libs.data.imageset import ImageSet
from libs.data.partition import partition_patients, split_by_patient
from libs.data.phantom import make_phantoms


def _tiny(patients: list[tuple[str, int]]) -> ImageSet:
    return ImageSet(
        images=np.zeros((len(patients), 8, 8), np.uint8),
        labels=np.array([label for _, label in patients], np.int64),
        patients=tuple(name for name, _ in patients),
        names=tuple(str(i) for i in range(len(patients))),
    )


def test_even_hospitals_have_about_the_same_of_each_class() -> None:
    parts = partition_patients(make_phantoms(600, size=8, seed=0), hospitals=3, seed=0)
    for name in ("NORMAL", "PNEUMONIA"):
        counts = [part.class_counts[name] for part in parts]
        assert max(counts) < 1.3 * min(counts)


def test_a_small_concentration_is_less_even_than_a_large_one() -> None:
    images = make_phantoms(600, size=8, seed=0)

    def spread(skew: float) -> float:
        shares = [
            part.class_counts["PNEUMONIA"] / len(part)
            for seed in range(5)
            for part in partition_patients(images, hospitals=3, skew=skew, seed=seed)
        ]
        return float(np.std(shares))

    assert spread(0.5) > 3 * spread(100.0)


def test_a_patient_with_images_of_both_classes_stays_whole() -> None:
    images = _tiny([("a", 0), ("a", 1), ("b", 0), ("c", 1), ("d", 0), ("e", 1)])
    rest, held = split_by_patient(images, fraction=0.5, seed=0)
    assert not set(rest.patients) & set(held.patients)


def test_the_split_does_not_depend_on_the_order_of_images() -> None:
    images = make_phantoms(60, size=8, seed=0)
    shuffled = images.select(np.random.default_rng(0).permutation(60))
    for seed in range(3):
        assert set(split_by_patient(images, fraction=0.2, seed=seed)[1].patients) == set(
            split_by_patient(shuffled, fraction=0.2, seed=seed)[1].patients
        )


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        ({"hospitals": 3}, "too few for 3"),
        ({"hospitals": 0}, "1 to 1000"),
        ({"hospitals": 2, "skew": 0.0}, "above 0"),
        ({"hospitals": 2, "skew": float("nan")}, "above 0"),
    ],
)
def test_an_impossible_division_is_refused(arguments: dict[str, float], text: str) -> None:
    images = _tiny([("a", 0), ("b", 0), ("c", 1), ("d", 1)])
    with pytest.raises(InvalidInput, match=text):
        partition_patients(images, seed=0, **arguments)  # type: ignore[arg-type]


def test_one_class_cannot_be_divided() -> None:
    with pytest.raises(InvalidInput, match="no images of class PNEUMONIA"):
        partition_patients(_tiny([("a", 0), ("b", 0)]), hospitals=2, seed=0)


def test_a_class_of_one_patient_cannot_be_split() -> None:
    with pytest.raises(InvalidInput, match="needs two"):
        split_by_patient(_tiny([("a", 0), ("b", 0), ("c", 1)]), fraction=0.5, seed=0)
