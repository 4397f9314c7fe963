"""Random changes of training images, a whole batch at a time."""

from __future__ import annotations

import math

import torch
from torch.nn import functional

from libs.fl.training_plan import Augmentation


def augment(images: torch.Tensor, settings: Augmentation, *, generator: torch.Generator) -> torch.Tensor:
    """Each image moved, turned, scaled, brightened and roughened by its own random amounts. Shape as given.

    images (N, C, H, W) in [-1, 1]; so is the result. Left and right are never swapped: the heart has a side.
    Every draw comes from `generator`, and the number of draws does not depend on the settings' values.
    """
    count = len(images)
    draws = torch.rand((count, 6), generator=generator) * 2 - 1
    if settings.shift or settings.rotation_degrees or settings.zoom:
        images = _move(images, settings, draws)
    if settings.contrast or settings.brightness:
        gain = (1 + settings.contrast * draws[:, 4]).view(-1, 1, 1, 1)
        offset = (2 * settings.brightness * draws[:, 5]).view(-1, 1, 1, 1)
        images = images * gain + offset
    if settings.noise:
        images = images + 2 * settings.noise * torch.randn(images.shape, generator=generator)
    return images.clamp(-1, 1)


def _move(images: torch.Tensor, settings: Augmentation, draws: torch.Tensor) -> torch.Tensor:
    """One resampling for shift, rotation and zoom together; what comes into view repeats the border."""
    angle = draws[:, 0] * math.radians(settings.rotation_degrees)
    scale = torch.exp(-draws[:, 1] * math.log1p(settings.zoom))
    shift = 2 * settings.shift * draws[:, 2:4]  # grid coordinates run from -1 to 1
    cos, sin = torch.cos(angle) * scale, torch.sin(angle) * scale
    rows = torch.stack(
        [torch.stack([cos, -sin, shift[:, 0]], dim=1), torch.stack([sin, cos, shift[:, 1]], dim=1)], dim=1
    )
    grid = functional.affine_grid(rows, list(images.shape), align_corners=False)
    return functional.grid_sample(images, grid, mode="bilinear", padding_mode="border", align_corners=False)
