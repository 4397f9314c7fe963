"""Writing a hospital's part to disk."""

from pathlib import Path

import pytest

from libs.core.errors import AlreadyExists
from libs.data.dataset import load_dataset
from libs.data.export import export_part
from libs.data.phantom import make_phantoms


def test_what_is_written_reads_back_with_pixels_labels_and_patients(tmp_path: Path) -> None:
    images = make_phantoms(30, size=28, seed=0)
    export_part(images, tmp_path / "part")
    back = load_dataset(tmp_path / "part", size=28)
    order = sorted(range(30), key=lambda i: images.labels[i])
    assert (back.images == images.images[order]).all()
    assert back.labels.tolist() == images.labels[order].tolist()
    assert list(back.patients) == [images.patients[i] for i in order]


def test_file_names_say_nothing_about_a_patient(tmp_path: Path) -> None:
    export_part(make_phantoms(10, size=8, seed=0), tmp_path / "part")
    assert not [path for path in tmp_path.rglob("*.png") if "phantom" in path.name]


def test_nothing_is_overwritten(tmp_path: Path) -> None:
    (tmp_path / "mine.txt").write_text("precious")
    with pytest.raises(AlreadyExists):
        export_part(make_phantoms(10, size=8, seed=0), tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["mine.txt"]
