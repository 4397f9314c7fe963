"""From pixels to what a model sees."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch


def to_model_input(images: npt.NDArray[np.uint8]) -> torch.Tensor:
    """Images (N, H, W) as float32 (N, 1, H, W) in [-1, 1]; mid gray is 0, like the padding of convolutions.

    Training, calibration and the clinic's client all use this one function.
    """
    scaled = np.ascontiguousarray(images)[:, None].astype(np.float32) / np.float32(127.5) - np.float32(1)
    return torch.from_numpy(scaled)
