"""The data of a demo: a held-out test set for the clinic, and each hospital's part in its own folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from libs.cli.demo.options import PHANTOM_IMAGES, TEST_FRACTION, DemoOptions
from libs.data.dataset import load_train_and_test
from libs.data.export import export_part
from libs.data.imageset import ImageSet
from libs.data.partition import partition_patients, split_by_patient
from libs.data.phantom import make_phantoms


@dataclass(frozen=True)
class Material:
    """`parts` and `test` share no patient, nor do two parts."""

    source: str
    parts: dict[str, ImageSet]
    test: ImageSet

    @property
    def train_images(self) -> int:
        """Images of all hospitals together."""
        return sum(len(part) for part in self.parts.values())


def load_material(options: DemoOptions, hospitals: tuple[str, ...]) -> Material:
    """Read or make the images and divide them, all from the seed."""
    if options.data is None:
        source = "made-up chest radiographs"
        images = make_phantoms(PHANTOM_IMAGES, size=options.image_size, seed=options.seed)
        train, test = split_by_patient(images, fraction=TEST_FRACTION, seed=options.seed)
    else:
        source = options.data.name
        train, test = load_train_and_test(
            options.data, size=options.image_size, test_fraction=TEST_FRACTION, seed=options.seed
        )
    parts = partition_patients(train, hospitals=len(hospitals), skew=options.skew, seed=options.seed)
    return Material(source=source, parts=dict(zip(hospitals, parts, strict=True)), test=test)


def hand_out(material: Material, data_folder_of: dict[str, Path]) -> None:
    """Write each hospital's part into its own folder, from which it publishes.

    Nobody else reads that folder.
    """
    for hospital, part in material.parts.items():
        export_part(part, data_folder_of[hospital] / DATASET_NAME)


DATASET_NAME = "chest-x-rays"
TAGS = ("chest-x-ray", "pneumonia")
