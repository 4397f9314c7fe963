"""Labelled radiographs in memory: the one form in which the rest of Trefoil sees data."""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput

CLASS_NAMES = ("NORMAL", "PNEUMONIA")
"""Label i means CLASS_NAMES[i]."""

POSITIVE = 1
"""The label that a detector looks for."""


@dataclass(frozen=True, eq=False)
class ImageSet:
    """Square gray images with label and patient; item i of every field belongs to image i.

    images (N, size, size) uint8, 0 is black; labels (N,) int64, indices into CLASS_NAMES; patients and
    names: N texts each. Images of one patient may never lie on both sides of a split. `repr` shows counts
    only.
    """

    images: npt.NDArray[np.uint8]
    labels: npt.NDArray[np.int64]
    patients: tuple[str, ...]
    names: tuple[str, ...]

    def __post_init__(self) -> None:
        count = len(self.images)
        if self.images.dtype != np.uint8 or self.images.ndim != 3:
            raise InvalidInput("An image set holds 8-bit gray images of shape (N, height, width).")
        if self.images.shape[1] != self.images.shape[2]:
            raise InvalidInput(
                "An image set holds square images. Crop them before scaling; never squash them."
            )
        if self.labels.dtype != np.int64 or self.labels.shape != (count,):
            raise InvalidInput("An image set needs one label per image.")
        if count and not np.isin(self.labels, range(len(CLASS_NAMES))).all():
            raise InvalidInput(f"Labels count from 0, in the order {', '.join(CLASS_NAMES)}.")
        if len(self.patients) != count or len(self.names) != count:
            raise InvalidInput("An image set needs one patient and one name per image.")

    def __len__(self) -> int:
        return len(self.images)

    def __repr__(self) -> str:
        return f"ImageSet({self.images.shape}, patients={self.patient_count}, classes={self.class_counts})"

    @property
    def size(self) -> int:
        """Pixels a side."""
        return int(self.images.shape[1])

    @property
    def patient_count(self) -> int:
        """Different patients."""
        return len(set(self.patients))

    @property
    def class_counts(self) -> dict[str, int]:
        """Images of each class, also of a class that has none."""
        counts = Counter(self.labels.tolist())
        return {name: counts.get(index, 0) for index, name in enumerate(CLASS_NAMES)}

    @property
    def content_hash(self) -> str:
        """SHA-256 over pixels, labels and patients, hex: the same content gives the same hash anywhere."""
        digest = hashlib.sha256(repr(self.images.shape).encode())
        digest.update(np.ascontiguousarray(self.images).tobytes())
        digest.update(self.labels.astype("<i8").tobytes())
        digest.update("\0".join(self.patients).encode())
        return digest.hexdigest()

    def select(self, indices: Sequence[int] | npt.NDArray[np.integer[Any]]) -> ImageSet:
        """The images at these indices, in this order."""
        chosen = np.asarray(indices, dtype=np.int64)
        return ImageSet(
            images=self.images[chosen],
            labels=self.labels[chosen],
            patients=tuple(self.patients[i] for i in chosen),
            names=tuple(self.names[i] for i in chosen),
        )


@dataclass(frozen=True)
class Parts:
    """What a source reads: everything to learn from, and the official test part if there is one."""

    train: ImageSet
    test: ImageSet | None


def join(sets: Sequence[ImageSet]) -> ImageSet:
    """All sets one after the other. Raises InvalidInput when their image sizes differ."""
    if len({imageset.size for imageset in sets}) > 1:
        raise InvalidInput("Image sets of different sizes cannot be joined. Load them at one size.")
    return ImageSet(
        images=np.concatenate([imageset.images for imageset in sets]),
        labels=np.concatenate([imageset.labels for imageset in sets]),
        patients=tuple(patient for imageset in sets for patient in imageset.patients),
        names=tuple(name for imageset in sets for name in imageset.names),
    )


def require_both_classes(imageset: ImageSet) -> None:
    """Raises InvalidInput when there is no image at all, or none of a class: nothing could be learnt."""
    if not len(imageset):
        raise InvalidInput("There are no images here. Check the path, and that images lie in class folders.")
    missing = [name for name, count in imageset.class_counts.items() if not count]
    if missing:
        raise InvalidInput(
            f"There are no images of class {' and '.join(missing)}. A detector is trained on both classes, "
            f"{' and '.join(CLASS_NAMES)}. Check the labels, or join this data with another part."
        )
