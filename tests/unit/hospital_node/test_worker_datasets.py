"""Every check between a path on the hospital's disk and images."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import numpy as np
import pytest

from libs.core.errors import FailedPrecondition, InvalidInput, PermissionDenied
from libs.data.export import export_part
from libs.data.phantom import make_phantoms
from services.hospital_node.worker.datasets import Datasets, owners_text

IMAGES = 12


@pytest.fixture(scope="module")
def original(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("data")
    export_part(make_phantoms(count=IMAGES, size=28, seed=1), root / "chest")
    return root


@pytest.fixture
def root(original: Path, tmp_path: Path) -> Path:
    """A data root that a test may change, beside nothing else."""
    copy = tmp_path / "root"
    shutil.copytree(original, copy)
    return copy


@pytest.mark.parametrize(
    "way", ["plainly", "as a single file", "by dots", "by a link", "by a linked folder", "by a linked file"]
)
def test_a_path_that_leads_out_of_the_data_roots_is_refused(original: Path, root: Path, way: str) -> None:
    path = root / "chest"
    if way == "plainly":
        path = original / "chest"
    elif way == "as a single file":
        path = original / "chest.npz"
        labels = np.array([[0], [1]])
        np.savez(path, train_images=np.zeros((2, 28, 28), np.uint8), train_labels=labels)
    elif way == "by dots":
        path = root / ".." / ".." / original.name / "chest"
    elif way == "by a link":
        path = root / "link"
        path.symlink_to(original / "chest")
    elif way == "by a linked folder":
        shutil.rmtree(path / "NORMAL")
        (path / "NORMAL").symlink_to(original / "chest" / "NORMAL")
    else:
        image = next((path / "NORMAL").glob("*.png"))
        image.unlink()
        image.symlink_to(original / "chest" / "NORMAL" / image.name)
    with pytest.raises(PermissionDenied, match="may be published"):
        Datasets().inspect(path, data_roots=[root])


def test_links_within_the_data_roots_are_followed(root: Path) -> None:
    (root / "link").symlink_to(root / "chest")
    found = Datasets().inspect(root / "link", data_roots=[root])
    assert found.images == IMAGES
    assert found.content_hash == Datasets().inspect(root / "chest", data_roots=[root]).content_hash


def test_a_link_to_the_folder_above_is_refused_and_not_followed_for_ever(root: Path) -> None:
    (root / "chest" / "NORMAL" / "again").symlink_to(root / "chest")
    with pytest.raises(InvalidInput, match="already"):
        Datasets().inspect(root / "chest", data_roots=[root])


def test_a_relative_path_is_refused(root: Path) -> None:
    with pytest.raises(InvalidInput, match="absolute"):
        Datasets().inspect(Path("chest"), data_roots=[root])


@pytest.mark.parametrize(
    ("breakage", "says"),
    [
        ("nothing", "nothing at this path"),
        ("empty", "folders named"),
        ("one class", "PNEUMONIA"),
        ("unreadable", r"\(file: chest/NORMAL/000000\.png\)"),
        ("text file", "not a data set"),
        ("nan", "NaN|finite|8-bit|uint8"),
    ],
)
def test_data_that_cannot_be_learnt_from_is_refused_in_words_for_its_owner(
    root: Path, breakage: str, says: str
) -> None:
    path = root / "chest"
    if breakage in {"nothing", "empty", "text file"}:
        shutil.rmtree(path)
    if breakage == "empty":
        path.mkdir()
    elif breakage == "text file":
        path.write_text("label,image")
    elif breakage == "one class":
        shutil.rmtree(path / "PNEUMONIA")
    elif breakage == "unreadable":
        sorted((path / "NORMAL").glob("*.png"))[0].write_bytes(b"not an image")
    elif breakage == "nan":
        path = root / "chest.npz"
        images = np.full((4, 28, 28), np.nan)
        np.savez(path, train_images=images, train_labels=np.array([[0], [1], [0], [1]]))
    with pytest.raises(InvalidInput) as caught:
        Datasets().inspect(path, data_roots=[root])
    text = owners_text(caught.value, data_roots=[root])

    assert re.search(says, text)
    assert str(root) not in text


def load(datasets: Datasets, root: Path, content_hash: str) -> int:
    return len(datasets.load(root / "chest", data_roots=[root], size=28, content_hash=content_hash).images)


@pytest.mark.parametrize("change", ["added", "removed", "overwritten", "replaced by a link"])
def test_files_that_changed_since_they_were_published_are_not_loaded_not_even_from_memory(
    root: Path, original: Path, change: str
) -> None:
    datasets = Datasets()
    content_hash = datasets.inspect(root / "chest", data_roots=[root]).content_hash
    assert load(datasets, root, content_hash) == IMAGES
    image = sorted((root / "chest" / "NORMAL").glob("*.png"))[0]
    if change == "added":
        shutil.copy(image, image.with_name("999999.png"))
    elif change == "overwritten":
        image.write_bytes(sorted((root / "chest" / "PNEUMONIA").glob("*.png"))[0].read_bytes())
    else:
        image.unlink()
    if change == "replaced by a link":
        image.symlink_to(original / "chest" / "NORMAL" / image.name)
    with pytest.raises(FailedPrecondition, match="no longer") as caught:
        load(datasets, root, content_hash)
    assert image.name not in str(caught.value)


def test_unchanged_files_are_read_once(root: Path) -> None:
    datasets = Datasets()
    content_hash = datasets.inspect(root / "chest", data_roots=[root]).content_hash
    first = datasets.load(root / "chest", data_roots=[root], size=28, content_hash=content_hash)
    assert datasets.load(root / "chest", data_roots=[root], size=28, content_hash=content_hash) is first


@pytest.fixture
def archive(root: Path) -> Path:
    """An .npz file, and the list of its patients beside it."""
    pixels = np.arange(4 * 28 * 28, dtype=np.uint8).reshape(4, 28, 28)
    np.savez(root / "chest.npz", train_images=pixels, train_labels=np.array([[0], [1], [0], [1]]))
    lines = [f"train,{i},patient-{i // 2}" for i in range(4)]
    (root / "chest_ids.csv").write_text("\n".join(["split,index,patient_id", *lines]))
    return root / "chest.npz"


def test_the_patients_beside_an_npz_file_are_part_of_what_was_published(archive: Path, root: Path) -> None:
    published = Datasets().inspect(archive, data_roots=[root])
    assert published.patients == 2
    datasets = Datasets()
    datasets.load(archive, data_roots=[root], size=28, content_hash=published.content_hash)
    listed = root / "chest_ids.csv"
    listed.write_text(listed.read_text().replace("patient-1", "patient-0"))
    for loader in (datasets, Datasets()):
        with pytest.raises(FailedPrecondition, match="no longer"):
            loader.load(archive, data_roots=[root], size=28, content_hash=published.content_hash)


def test_patients_listed_outside_of_the_data_roots_are_not_read(
    archive: Path, root: Path, tmp_path: Path
) -> None:
    outside = tmp_path / "outside.csv"
    (root / "chest_ids.csv").rename(outside)
    (root / "chest_ids.csv").symlink_to(outside)
    with pytest.raises(PermissionDenied, match=r"chest_ids\.csv is a link"):
        Datasets().inspect(archive, data_roots=[root])
