"""Made-up chest radiographs, for machines without data and for tests. Nobody's lungs.

A frontal chest in a few soft shapes: body, two lungs above the diaphragm, ribs, spine, heart, vessels, each
with its own place and size in every patient. Pneumonia adds one to three textured opacities inside the
lungs. It is hard for the reasons that make it hard in life: exposure differs, healthy lungs have vessels
and sometimes a shadow of their own, and an early opacity is nearly invisible.

Coordinates: x to the right and y down, both from -1 to 1. The viewer's right is the patient's left, where
the heart is.

Arithmetic is in double precision: single precision rounds a few pixels in a hundred thousand another way on
another processor, and mocks are compared by hash. Bump GENERATOR when the same arguments give other pixels.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from libs.core.errors import InvalidInput
from libs.data.images import check_size
from libs.data.imageset import CLASS_NAMES, POSITIVE, ImageSet

Floats = npt.NDArray[np.float64]

GENERATOR = "phantom-2"
"""What makes the pixels, by version: a hash of made-up images is of one generator."""

MAX_COUNT = 100_000
_CHUNK_PIXELS = 2**20
_CHUNK_IMAGES = 256
_IMAGES_PER_PATIENT = (0.7, 0.2, 0.1)  # chance of 1, 2, 3 images
_OPACITIES = 3
_SHADOWED = 0.25  # of the healthy lungs


def make_phantoms(count: int, *, size: int, seed: int, pneumonia_fraction: float = 0.5) -> ImageSet:
    """`count` made-up radiographs of `size` pixels a side, of patients with one to three images each.

    The same arguments give the same pixels. A patient keeps anatomy and class; position, exposure and
    opacities are each image's own. Both classes always occur. Raises InvalidInput for fewer than 8 images.
    """
    check_size(size)
    if not 8 <= count <= MAX_COUNT:
        raise InvalidInput(f"The generator makes 8 to {MAX_COUNT} images at a time, not {count}.")
    if not 0.05 <= pneumonia_fraction <= 0.95:
        raise InvalidInput("The fraction with pneumonia lies between 0.05 and 0.95.")
    rng = np.random.default_rng(seed)
    owner = _owners(count, rng)
    patients = int(owner[-1]) + 1
    ill = np.zeros(patients, np.int64)
    ill[rng.permutation(patients)[: min(max(1, round(pneumonia_fraction * patients)), patients - 1)]] = 1
    return _make(owner, ill, size, rng)


def make_phantoms_per_class(images_per_class: Sequence[int], *, size: int, seed: int) -> ImageSet:
    """Exactly so many made-up radiographs of each class, in their order, as `make_phantoms` makes them.

    Raises InvalidInput unless every class gets at least one image and all together at most MAX_COUNT.
    """
    check_size(size)
    if len(images_per_class) != len(CLASS_NAMES) or min(images_per_class) < 1:
        raise InvalidInput(
            f"The generator makes images of {' and '.join(CLASS_NAMES)}, at least one of each."
        )
    if sum(images_per_class) > MAX_COUNT:
        raise InvalidInput(f"The generator makes at most {MAX_COUNT} images at a time.")
    rng = np.random.default_rng(seed)
    owner, ill = np.empty(0, np.int64), np.empty(0, np.int64)
    for label, count in enumerate(images_per_class):
        owner = np.concatenate([owner, _owners(count, rng) + len(ill)])
        ill = np.concatenate([ill, np.full(int(owner[-1]) + 1 - len(ill), label, np.int64)])
    return _make(owner, ill, size, rng)


def _make(
    owner: npt.NDArray[np.int64], ill: npt.NDArray[np.int64], size: int, rng: np.random.Generator
) -> ImageSet:
    """The image of each entry of `owner`, a patient's number; `ill` (patients,) is the class of each."""
    count = len(owner)
    anatomy = _Anatomy.draw(len(ill), rng)
    images = np.empty((count, size, size), np.uint8)
    chunk = min(_CHUNK_IMAGES, max(1, _CHUNK_PIXELS // size**2))
    for start in range(0, count, chunk):
        chosen = owner[start : start + chunk]
        images[start : start + chunk] = _render(anatomy.of(chosen), ill[chosen], size, rng)
    return ImageSet(
        images=images,
        labels=ill[owner],
        patients=tuple(f"phantom-{i:06d}" for i in owner.tolist()),
        names=tuple(f"phantom/{i:06d}" for i in range(count)),
    )


def _owners(count: int, rng: np.random.Generator) -> npt.NDArray[np.int64]:
    """Patient number of each image, without gaps, in order. Shape (count,)."""
    images_of = 1 + rng.choice(len(_IMAGES_PER_PATIENT), size=count, p=_IMAGES_PER_PATIENT)
    return np.repeat(np.arange(count), images_of)[:count].astype(np.int64)


@dataclass(frozen=True)
class _Anatomy:
    """What all images of a patient share. Fields (patients, 1, 1), or (patients, 2, 1, 1) for both lungs."""

    lung_x: Floats
    lung_y: Floats
    lung_width: Floats
    lung_height: Floats
    diaphragm: Floats
    heart_x: Floats
    heart_radius: Floats
    rib_spacing: Floats
    rib_phase: Floats
    rib_strength: Floats
    tissue: Floats
    vessels: Floats

    @classmethod
    def draw(cls, patients: int, rng: np.random.Generator) -> _Anatomy:
        def uniform(low: float, high: float, *, pair: bool = False) -> Floats:
            shape = (patients, 2, 1, 1) if pair else (patients, 1, 1)
            return rng.uniform(low, high, shape)

        return cls(
            lung_x=uniform(0.42, 0.5, pair=True) * np.array([-1.0, 1.0]).reshape(1, 2, 1, 1),
            lung_y=uniform(-0.16, -0.02, pair=True),
            lung_width=uniform(0.31, 0.4, pair=True),
            lung_height=uniform(0.68, 0.9, pair=True),
            diaphragm=uniform(0.42, 0.68, pair=True),
            heart_x=uniform(0.08, 0.22),
            heart_radius=uniform(0.28, 0.42),
            rib_spacing=uniform(0.2, 0.27),
            rib_phase=uniform(0, 2 * np.pi),
            rib_strength=uniform(0.05, 0.11),
            tissue=uniform(0.62, 0.8),
            vessels=uniform(0.02, 0.07),
        )

    def of(self, patients: npt.NDArray[np.int64]) -> _Anatomy:
        """The anatomy of these patients, one row each."""
        return _Anatomy(**{name: value[patients] for name, value in vars(self).items()})


def _render(
    anatomy: _Anatomy, ill: npt.NDArray[np.int64], size: int, rng: np.random.Generator
) -> npt.NDArray[np.uint8]:
    """One image per row of `anatomy`. Shape (rows, size, size)."""
    count = len(ill)
    x, y = _grid(count, size, rng)
    lungs = _lungs(anatomy, x, y)
    lung = lungs.max(axis=1)
    body = _inside(1.0 - np.abs(x / 0.98) ** 6 - np.abs((y - 0.35) / 1.45) ** 6, 6.0)
    fine = _clouds(count, size, 12, rng)
    coarse = _clouds(count, size, 5, rng)

    image = 0.04 + anatomy.tissue * body * (1 - 0.72 * lung)
    image += anatomy.rib_strength * (0.4 + 0.6 * lung) * body * _ribs(anatomy, x, y)
    image += 0.14 * body * np.exp(-((x / 0.12) ** 2))
    heart = _inside(1 - ((x - anatomy.heart_x) / anatomy.heart_radius) ** 2 - ((y - 0.3) / 0.34) ** 2, 5.0)
    image += 0.36 * heart * lung
    hilum = np.exp(-((np.abs(x) - 0.2) ** 2) / 0.05 - (y + 0.02) ** 2 / 0.12)
    image += anatomy.vessels * lung * (hilum * np.maximum(1.2 + fine, 0) + 0.5 * fine)
    image += lung * _opacities(ill, x, y, rng) * np.clip(1 + 0.35 * fine + 0.25 * coarse, 0.2, 2.0)
    image += 0.03 * coarse * body
    return _expose(image, rng)


def _grid(count: int, size: int, rng: np.random.Generator) -> tuple[Floats, Floats]:
    """Pixel coordinates of each image, as the patient happens to stand. Shapes (count, size, size)."""
    axis = (np.arange(size) + 0.5) * (2 / size) - 1
    angle, zoom, dx, dy = (rng.uniform(-limit, limit, (count, 1, 1)) for limit in (0.07, 0.08, 0.07, 0.07))
    rows, columns = axis.reshape(1, -1, 1), axis.reshape(1, 1, -1)
    scale = 1 + zoom
    x = (np.cos(angle) * columns + np.sin(angle) * rows) * scale + dx
    y = (np.cos(angle) * rows - np.sin(angle) * columns) * scale + dy
    return x, y


def _inside(margin: Floats, sharpness: float) -> Floats:
    """1 where `margin` is well above 0, 0 where well below, soft between."""
    result: Floats = 1 / (1 + np.exp(-sharpness * np.clip(margin, -8, 8)))
    return result


def _lungs(anatomy: _Anatomy, x: Floats, y: Floats) -> Floats:
    """How much each pixel belongs to the (left, right) lung of the image. Shape (count, 2, size, size)."""
    u, v = x[:, None], y[:, None]
    across = (u - anatomy.lung_x) / (anatomy.lung_width * (1 + 0.25 * np.clip(v, -1, 1)))
    along = (v - anatomy.lung_y) / anatomy.lung_height
    dome = anatomy.diaphragm + 0.35 * (u - anatomy.lung_x) ** 2 / anatomy.lung_width - v
    return _inside(1 - across**2 - along**2, 7.0) * _inside(dome, 18.0)


def _ribs(anatomy: _Anatomy, x: Floats, y: Floats) -> Floats:
    """Bands that fall away from the spine, between -0.3 and 0.7."""
    height = y - 0.3 * np.abs(x) + 0.35 * x**2
    wave = np.sin(2 * np.pi * height / anatomy.rib_spacing + anatomy.rib_phase)
    result: Floats = np.clip(wave, -0.3, 0.7)
    return result


def _opacities(ill: npt.NDArray[np.int64], x: Floats, y: Floats, rng: np.random.Generator) -> Floats:
    """Added whiteness before texture. Some healthy lungs have a small shadow: a bright spot proves little."""
    shape = (len(ill), _OPACITIES)

    def choose(if_ill: npt.NDArray[Any], if_healthy: npt.NDArray[Any]) -> npt.NDArray[Any]:
        return np.where(ill[:, None] == POSITIVE, if_ill, if_healthy)

    number = choose(rng.integers(1, _OPACITIES + 1, (len(ill), 1)), rng.random((len(ill), 1)) < _SHADOWED)
    strength = choose(0.1 + rng.gamma(3.0, 0.11, shape), rng.gamma(2.0, 0.03, shape))
    strength = strength * (np.arange(_OPACITIES) < number)
    radius = choose(rng.uniform(0.18, 0.4, shape), rng.uniform(0.08, 0.2, shape))
    centre_x = rng.choice([-1.0, 1.0], shape) * rng.uniform(0.25, 0.55, shape)
    centre_y = rng.triangular(-0.5, 0.25, 0.45, shape)  # most often in the lower lobes
    stretch = rng.uniform(0.7, 1.4, shape)
    total = np.zeros_like(x)
    for i in range(_OPACITIES):
        cx, cy, r, s, a = (
            values[:, i, None, None] for values in (centre_x, centre_y, radius, stretch, strength)
        )
        total += a * np.exp(-(((x - cx) * s / r) ** 2) - ((y - cy) / (s * r)) ** 2)
    return total


def _clouds(count: int, size: int, cells: int, rng: np.random.Generator) -> Floats:
    """Smooth noise of about unit deviation, `cells` bumps across. Shape (count, size, size)."""
    coarse = rng.standard_normal((count, cells, cells), dtype=np.float32).astype(np.float64)
    place = (np.arange(size) + 0.5) / size * (cells - 1)
    weights = np.maximum(0, 1 - np.abs(place[:, None] - np.arange(cells)))
    smooth = np.einsum("pa,nab,qb->npq", weights, coarse, weights, optimize=True)
    result: Floats = 1.5 * smooth
    return result


def _expose(image: Floats, rng: np.random.Generator) -> npt.NDArray[np.uint8]:
    """8-bit pixels after an exposure of the image's own, with more noise where fewer photons arrive."""
    count = len(image)
    gain, gamma, offset, grain = (
        rng.uniform(low, high, (count, 1, 1))
        for low, high in ((0.8, 1.15), (0.8, 1.3), (-0.04, 0.06), (0.01, 0.035))
    )
    exposed = gain * np.clip(image, 0, 1.2) ** gamma + offset
    noisy = exposed + grain * np.sqrt(0.3 + np.clip(image, 0, 1)) * rng.standard_normal(
        image.shape, np.float32
    )
    result: npt.NDArray[np.uint8] = np.rint(np.clip(noisy, 0, 1) * 255).astype(np.uint8)
    return result
