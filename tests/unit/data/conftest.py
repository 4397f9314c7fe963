"""Small data sets on disk."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image


def write_image(path: Path, *, value: int = 100, shape: tuple[int, int] = (30, 40)) -> None:
    """A plain gray image with a gradient, so that it is not constant."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.clip(value + np.arange(shape[1]), 0, 255).astype(np.uint8)
    Image.fromarray(np.broadcast_to(pixels, shape).copy()).save(path)


@pytest.fixture
def class_folders(tmp_path: Path) -> Path:
    """Three normal images of two patients, three with pneumonia of two patients."""
    root = tmp_path / "xrays"
    for i, name in enumerate(["IM-0001-0001", "NORMAL2-IM-0001-0001", "IM-0002-0001"]):
        write_image(root / "NORMAL" / f"{name}.jpeg", value=10 * i)
    for i, name in enumerate(["person1_virus_1", "person1_bacteria_2", "person2_virus_3"]):
        write_image(root / "PNEUMONIA" / f"{name}.jpeg", value=100 + 10 * i)
    return root


def npz_arrays(*, count: int = 6, size: int = 28) -> dict[str, np.ndarray]:
    """MedMNIST's keys, both classes in every part."""
    rng = np.random.default_rng(0)
    return {
        f"{split}_{kind}": values
        for split in ("train", "val", "test")
        for kind, values in {
            "images": rng.integers(0, 256, (count, size, size), np.uint8),
            "labels": (np.arange(count) % 2).astype(np.uint8)[:, None],
        }.items()
    }
