"""What can be chosen about a demo."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PHANTOM_IMAGES = 1600
PHANTOM_SIZE = 28
NPZ_SIZE = 28
FOLDER_SIZE = 64
TEST_FRACTION = 0.25
SMALL_CNN_UP_TO = 48
"""Pixels a side up to which the small network is the default."""


@dataclass(frozen=True)
class DemoOptions:
    """None means: chosen from the data."""

    data: Path | None = None
    hospitals: int = 3
    rounds: int | None = None
    model: str | None = None
    size: int | None = None
    skew: float | None = None
    seed: int = 0
    output: Path = Path("runs")
    keep: bool = False

    @property
    def image_size(self) -> int:
        """Pixels a side: 28 for made-up images and .npz files (MedMNIST's size), 64 for folders of
        radiographs.
        """
        if self.size is not None:
            return self.size
        if self.data is None:
            return PHANTOM_SIZE
        return FOLDER_SIZE if self.data.is_dir() else NPZ_SIZE

    @property
    def model_name(self) -> str:
        """The architecture."""
        return self.model or ("small_cnn" if self.image_size <= SMALL_CNN_UP_TO else "medium_cnn")
