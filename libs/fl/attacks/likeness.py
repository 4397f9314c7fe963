"""How much a reconstruction shows of the original, in figures that a picture can be checked against."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import linear_sum_assignment
from torch.nn import functional

from libs.core.errors import InvalidInput

Floats = npt.NDArray[np.floating[Any]]

_WINDOW, _SIGMA = 7, 1.5
_C1, _C2 = 0.01**2, 0.03**2
_IDENTICAL_DB = 100.0


@dataclass(frozen=True)
class Likeness:
    """One original and the reconstruction that was matched with it, `index` among all of them.

    psnr_db in decibels (`_IDENTICAL_DB` at most), ssim in [-1, 1], and `rank`: 1 when no other of the X-rays
    that were compared is nearer to the reconstruction than the original.
    """

    index: int
    psnr_db: float
    ssim: float
    rank: int


def psnr(a: Floats, b: Floats) -> float:
    """Peak signal-to-noise ratio of images (H, W) in [0, 1], in decibels."""
    error = float(np.mean((np.asarray(a, np.float64) - b) ** 2))
    return min(_IDENTICAL_DB, -10 * float(np.log10(max(error, 1e-30))))


def ssim(a: Floats, b: Floats) -> float:
    """Structural similarity (Wang et al., 2004) of images (H, W) in [0, 1]: Gaussian windows of 7 pixels."""
    side = torch.arange(_WINDOW, dtype=torch.float64) - _WINDOW // 2
    line = torch.exp(-(side**2) / (2 * _SIGMA**2))
    window = (line[:, None] * line / line.sum() ** 2)[None, None]
    x, y = (torch.from_numpy(np.asarray(image, np.float64))[None, None] for image in (a, b))

    def local(image: torch.Tensor) -> torch.Tensor:
        return functional.conv2d(image, window)

    mean_x, mean_y = local(x), local(y)
    variance_x, variance_y = local(x * x) - mean_x**2, local(y * y) - mean_y**2
    covariance = local(x * y) - mean_x * mean_y
    index = ((2 * mean_x * mean_y + _C1) * (2 * covariance + _C2)) / (
        (mean_x**2 + mean_y**2 + _C1) * (variance_x + variance_y + _C2)
    )
    return float(index.mean())


def match(originals: Floats, reconstructions: Floats, *, others: Floats) -> list[Likeness]:
    """The likeness of each original with a reconstruction of its own, matched so that all PSNRs together are
    largest.

    All (N, H, W) in [0, 1]; `others` are X-rays of other patients, among which each original is looked for.
    Raises InvalidInput when there are fewer reconstructions than originals.
    """
    if len(reconstructions) < len(originals):
        raise InvalidInput("There are fewer reconstructions than originals.")
    quality = np.array([[psnr(original, found) for found in reconstructions] for original in originals])
    rows, columns = linear_sum_assignment(-quality)
    return [
        Likeness(
            index=int(column),
            psnr_db=float(quality[row, column]),
            ssim=ssim(originals[row], reconstructions[column]),
            rank=_rank(originals[row], reconstructions[column], others),
        )
        for row, column in zip(rows, columns, strict=True)
    ]


def _rank(original: Floats, found: Floats, others: Floats) -> int:
    """Which place the original takes among all X-rays by distance from `found`, ties against the attacker.

    Compared without brightness and contrast, which differ from image to image more than what they show.
    """
    target = _standardised(found[None])[0]
    distance = float(((_standardised(original[None])[0] - target) ** 2).mean())
    distances = ((_standardised(others) - target) ** 2).mean(axis=(1, 2))
    return 1 + int((distances <= distance).sum())


def _standardised(images: Floats) -> npt.NDArray[np.float64]:
    values = np.asarray(images, np.float64)
    centred: npt.NDArray[np.float64] = values - values.mean(axis=(1, 2), keepdims=True)
    standardised: npt.NDArray[np.float64] = centred / np.maximum(
        centred.std(axis=(1, 2), keepdims=True), 1e-6
    )
    return standardised
