"""What holds for every division of every set of patients."""

from collections import Counter

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from libs.core.errors import InvalidInput
from libs.data.imageset import ImageSet
from libs.data.partition import partition_patients, split_by_patient, split_each_patient
from libs.data.phantom import make_phantoms


@st.composite
def image_sets(draw: st.DrawFn) -> ImageSet:
    """Each class with 3 to 20 patients of one to four images, in any order."""
    owners = [
        (f"{label}-{patient}", label)
        for label in (0, 1)
        for patient in range(draw(st.integers(3, 20)))
        for _ in range(draw(st.integers(1, 4)))
    ]
    owners = draw(st.permutations(owners))
    return ImageSet(
        images=np.zeros((len(owners), 8, 8), np.uint8),
        labels=np.array([label for _, label in owners], np.int64),
        patients=tuple(patient for patient, _ in owners),
        names=tuple(str(i) for i in range(len(owners))),
    )


@settings(max_examples=60, deadline=None)
@given(image_sets(), st.integers(1, 3), st.sampled_from([None, 0.01, 0.5, 100.0]), st.integers(0, 2**32))
def test_hospitals_share_no_patient_lose_no_image_and_have_both_classes(
    images: ImageSet, hospitals: int, skew: float | None, seed: int
) -> None:
    parts = partition_patients(images, hospitals=hospitals, skew=skew, seed=seed)
    again = partition_patients(images, hospitals=hospitals, skew=skew, seed=seed)
    assert [part.names for part in parts] == [part.names for part in again]
    assert Counter(name for part in parts for name in part.names) == Counter(images.names)
    owners = [patient for part in parts for patient in set(part.patients)]
    assert len(owners) == len(set(owners))
    assert all(count for part in parts for count in part.class_counts.values())


@settings(max_examples=60, deadline=None)
@given(image_sets(), st.floats(0.01, 0.99), st.integers(0, 2**32), st.data())
def test_in_a_stable_split_every_patient_has_a_side_of_its_own(
    images: ImageSet, fraction: float, seed: int, data: st.DataObject
) -> None:
    rest, held = split_each_patient(images, fraction=fraction, seed=seed)
    assert Counter(rest.names) + Counter(held.names) == Counter(images.names)
    assert not set(rest.patients) & set(held.patients)
    gone = data.draw(st.sampled_from(sorted(set(images.patients))))
    fewer = images.select([i for i, patient in enumerate(images.patients) if patient != gone])
    sides = split_each_patient(fewer, fraction=fraction, seed=seed)
    assert [set(side.patients) for side in sides] == [
        set(rest.patients) - {gone},
        set(held.patients) - {gone},
    ]


def test_a_stable_split_holds_out_about_its_fraction() -> None:
    images = make_phantoms(2000, size=8, seed=0)
    _, held = split_each_patient(images, fraction=0.2, seed=1)
    assert 0.15 < held.patient_count / images.patient_count < 0.25
    with pytest.raises(InvalidInput, match="between 0 and 1"):
        split_each_patient(images, fraction=1.0, seed=1)


@settings(max_examples=60, deadline=None)
@given(image_sets(), st.floats(0.01, 0.99), st.integers(0, 2**32))
def test_both_sides_of_a_split_have_both_classes_and_no_patient_in_common(
    images: ImageSet, fraction: float, seed: int
) -> None:
    rest, held = split_by_patient(images, fraction=fraction, seed=seed)
    assert not set(rest.patients) & set(held.patients)
    assert Counter(rest.names + held.names) == Counter(images.names)
    assert all(count for side in (rest, held) for count in side.class_counts.values())
