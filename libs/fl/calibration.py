"""Which images tell how large the numbers in a model get."""

from __future__ import annotations

import numpy as np

from libs.data.imageset import ImageSet
from libs.data.phantom import make_phantoms
from libs.fl.local_training import divide
from libs.fl.training_plan import TrainingPlan

CALIBRATION_IMAGES = 256


def calibration_images(imageset: ImageSet, plan: TrainingPlan) -> ImageSet:
    """Some of the images that the model learnt from; with privacy, made-up ones, the same at every hospital.

    Bounds leave the hospital in clear, so with privacy they may not depend on its images.
    """
    if plan.privacy is not None:
        return _made_up(plan.image_size)
    training, _ = divide(imageset, plan)
    # Every n-th image: images lie in order of class, so the first ones would all be of one class.
    count = min(len(training), CALIBRATION_IMAGES)
    return training.select(np.linspace(0, len(training) - 1, count).astype(np.int64))


def _made_up(size: int) -> ImageSet:
    """Phantoms, and the same with full contrast and as negatives: wider than radiographs are."""
    phantoms = make_phantoms(CALIBRATION_IMAGES, size=size, seed=0)
    third = CALIBRATION_IMAGES // 3
    images = phantoms.images.copy()
    low = images[third:].min(axis=(1, 2), keepdims=True).astype(np.float64)
    high = images[third:].max(axis=(1, 2), keepdims=True).astype(np.float64)
    images[third:] = np.rint((images[third:] - low) / np.maximum(high - low, 1) * 255).astype(np.uint8)
    images[2 * third :] = 255 - images[2 * third :]
    return ImageSet(images=images, labels=phantoms.labels, patients=phantoms.patients, names=phantoms.names)
