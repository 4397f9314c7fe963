"""Writing images to disk in a form that a hospital can publish."""

from __future__ import annotations

import csv
from pathlib import Path

from PIL import Image

from libs.core.errors import AlreadyExists
from libs.data.imageset import CLASS_NAMES, ImageSet
from libs.data.labels import LABELS_FILE


def export_part(imageset: ImageSet, folder: Path) -> None:
    """Write a new `folder` with one folder of PNG files per class, and the patients in LABELS_FILE.

    `load_dataset(folder)` gives the same pixels, labels and patients back, ordered by class. File names are
    numbers: they say nothing about a patient. Raises AlreadyExists when the folder holds anything, and
    writes nothing then.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise AlreadyExists("The folder to write to is not empty. Choose another, or empty it first.")
    for name in CLASS_NAMES:
        (folder / name).mkdir(parents=True, exist_ok=True)
    with (folder / LABELS_FILE).open("w", newline="", encoding="utf-8") as stream:
        rows = csv.writer(stream)
        rows.writerow(["file", "label", "patient_id"])
        for i, (image, label, patient) in enumerate(
            zip(imageset.images, imageset.labels.tolist(), imageset.patients, strict=True)
        ):
            file = f"{CLASS_NAMES[label]}/{i:06d}.png"
            Image.fromarray(image).save(folder / file)
            rows.writerow([file, CLASS_NAMES[label], patient])
