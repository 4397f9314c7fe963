"""Random changes of images."""

import torch

from libs.fl.augmentation import augment
from libs.fl.training_plan import Augmentation

ALL = Augmentation(shift=0.1, rotation_degrees=10, zoom=0.1, brightness=0.1, contrast=0.2, noise=0.02)


def _images(count: int = 4) -> torch.Tensor:
    return torch.rand((count, 1, 16, 16), generator=torch.Generator().manual_seed(0)) * 2 - 1


def _generator(seed: int = 1) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def test_nothing_switched_on_changes_nothing() -> None:
    assert torch.equal(augment(_images(), Augmentation(), generator=_generator()), _images())


def test_the_generator_decides_everything() -> None:
    torch.manual_seed(0)
    first = augment(_images(), ALL, generator=_generator())
    torch.manual_seed(1)
    assert torch.equal(first, augment(_images(), ALL, generator=_generator()))
    assert not torch.equal(first, augment(_images(), ALL, generator=_generator(2)))


def test_the_result_stays_in_range_and_each_image_is_changed_its_own_way() -> None:
    same = _images(1).expand(6, -1, -1, -1)
    changed = augment(same, ALL, generator=_generator())
    assert changed.abs().max() <= 1
    assert len({tuple(image.flatten().tolist()) for image in changed}) == 6


def test_a_shift_moves_by_at_most_its_fraction_of_the_side() -> None:
    image = torch.full((50, 1, 20, 20), -1.0)
    image[:, :, 10, 10] = 1.0
    moved = augment(image, Augmentation(shift=0.1), generator=_generator())
    weight = moved.squeeze(1) + 1
    axis = torch.arange(20.0)
    centre = (weight.sum(1) * axis).sum(1) / weight.sum((1, 2))
    assert (centre - 10).abs().max() <= 2.01
    assert (centre - 10).abs().max() > 1
