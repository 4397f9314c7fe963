"""The images of an evaluation: one test set for all rows, and who holds which of the others."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from libs.cli.demo.options import TEST_FRACTION
from libs.cli.evaluate.options import QUICK_IMAGES, EvaluateOptions
from libs.data.dataset import load_train_and_test
from libs.data.imageset import ImageSet
from libs.data.partition import partition_patients, split_by_patient
from libs.data.phantom import make_phantoms

Division = dict[str, tuple[int, ...]]
"""Hospital -> its images, by place in the training set."""


@dataclass(frozen=True)
class Material:
    """No patient is in both sets, unless the data set's own patients are unknown."""

    source: str
    train: ImageSet
    test: ImageSet


def load_material(options: EvaluateOptions) -> Material:
    """Read or make the images. The test set depends on the data, size and first seed alone."""
    if options.data is None:
        source = "made-up chest radiographs"
        images = make_phantoms(options.phantoms, size=options.image_size, seed=options.seed)
        train, test = split_by_patient(images, fraction=TEST_FRACTION, seed=options.seed)
    else:
        source = options.data.name
        train, test = load_train_and_test(
            options.data, size=options.image_size, test_fraction=TEST_FRACTION, seed=options.seed
        )
    if options.quick and len(train) > QUICK_IMAGES:
        fraction = QUICK_IMAGES / len(train)
        _, train = split_by_patient(train, fraction=fraction, seed=options.seed)
    return Material(source=source, train=train, test=test)


def divide_between(train: ImageSet, hospitals: tuple[str, ...], *, skew: float | None, seed: int) -> Division:
    """Every hospital's images, those without pneumonia first: in the order in which its node reads them.

    Training draws batches by place, so the same order makes the same weights here and at real nodes.
    """
    division = {}
    parts = partition_patients(train, hospitals=len(hospitals), skew=skew, seed=seed)
    for hospital, part in zip(hospitals, parts, strict=True):
        patients = set(part.patients)
        mine = np.array([i for i, patient in enumerate(train.patients) if patient in patients], np.int64)
        division[hospital] = tuple(mine[np.argsort(train.labels[mine], kind="stable")].tolist())
    return division
