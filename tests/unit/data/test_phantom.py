"""Made-up radiographs."""

import numpy as np
import pytest

from libs.core.errors import InvalidInput
from libs.data.phantom import make_phantoms, make_phantoms_per_class


def test_the_same_seed_gives_the_same_pixels_and_another_gives_others() -> None:
    assert make_phantoms(40, size=28, seed=3).content_hash == make_phantoms(40, size=28, seed=3).content_hash
    assert make_phantoms(40, size=28, seed=3).content_hash != make_phantoms(40, size=28, seed=4).content_hash


@pytest.mark.parametrize("size", [28, 64])
def test_both_classes_and_the_wanted_number_come_out(size: int) -> None:
    images = make_phantoms(300, size=size, seed=0)
    assert images.images.shape == (300, size, size)
    assert min(images.class_counts.values()) > 100
    assert 150 < images.patient_count < 300


def test_a_patient_is_healthy_or_ill_in_all_images() -> None:
    images = make_phantoms(300, size=16, seed=0)
    assert len(set(zip(images.patients, images.labels.tolist(), strict=True))) == images.patient_count


def test_no_image_occurs_twice_and_none_is_flat() -> None:
    images = make_phantoms(300, size=28, seed=0).images.reshape(300, -1)
    assert len(np.unique(images, axis=0)) == 300
    assert images.std(axis=1).min() > 20


def test_brightness_alone_does_not_give_the_class_away() -> None:
    images = make_phantoms(1000, size=28, seed=0)
    brightness = images.images.mean(axis=(1, 2))
    ill, healthy = brightness[images.labels == 1], brightness[images.labels == 0]
    assert 0.4 < (ill[:, None] > healthy[None]).mean() < 0.75


@pytest.mark.parametrize(
    "wrong",
    [{"count": 7}, {"count": 10**9}, {"size": 4}, {"pneumonia_fraction": 0.0}, {"pneumonia_fraction": 1.0}],
)
def test_what_cannot_be_made_is_refused(wrong: dict[str, float]) -> None:
    arguments = {"count": 20, "size": 28, "seed": 0} | wrong
    with pytest.raises(InvalidInput):
        make_phantoms(arguments.pop("count"), **arguments)  # type: ignore[arg-type]


def test_classes_have_exactly_the_wanted_numbers_of_images() -> None:
    images = make_phantoms_per_class([5, 9], size=16, seed=0)
    assert images.class_counts == {"NORMAL": 5, "PNEUMONIA": 9}
    assert len(set(zip(images.patients, images.labels.tolist(), strict=True))) == images.patient_count
    assert images.content_hash == make_phantoms_per_class([5, 9], size=16, seed=0).content_hash


@pytest.mark.parametrize("counts", [[0, 5], [5, 0], [5], [5, 5, 5], [10**9, 5]])
def test_classes_without_images_and_too_many_images_are_refused(counts: list[int]) -> None:
    with pytest.raises(InvalidInput):
        make_phantoms_per_class(counts, size=16, seed=0)
