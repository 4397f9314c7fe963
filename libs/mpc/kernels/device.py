"""Where a party computes its ring products."""

from __future__ import annotations

import enum

import torch

from libs.core.errors import InvalidInput


class Device(enum.Enum):
    """A party's choice for itself: results are the same bits everywhere, so the others need not know."""

    CPU = "cpu"
    CUDA = "cuda"

    def check(self) -> None:
        """Raise `InvalidInput` when this machine has no such device; for a service to call when it starts."""
        if self is Device.CUDA and not torch.cuda.is_available():
            raise InvalidInput(
                "The setting device is cuda, but PyTorch finds no CUDA device here. Install PyTorch's CUDA "
                "build and the driver, or set device to cpu."
            )
