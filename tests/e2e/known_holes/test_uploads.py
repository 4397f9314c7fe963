"""A hole of PyGrid: `tar.extractall` on what somebody sent."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from libs.cli.client.session import open_session
from libs.cli.demo.staff import owners_profile
from libs.core.errors import InvalidInput, PermissionDenied, TooLarge, TrefoilError
from libs.core.ids import new_id
from libs.data.export import export_part
from libs.data.phantom import make_phantoms
from libs.rpc._generated.trefoil.hospital.v1 import hospital_pb2
from tests.e2e.known_holes.conftest import (
    Federation,
    translate,
)

pytestmark = pytest.mark.timeout(240)

SIZE = 16


def outside(data: Path) -> Path:
    """A folder whose images are links to files beside the data root."""
    export_part(make_phantoms(8, size=SIZE, seed=8), data.parent / "private")
    folder = data / "links"
    folder.mkdir()
    for name in ("NORMAL", "PNEUMONIA"):
        (folder / name).symlink_to(data.parent / "private" / name)
    return folder


def above(data: Path) -> Path:
    """A path that climbs out of the data root."""
    export_part(make_phantoms(8, size=SIZE, seed=8), data.parent / "neighbour")
    return data / ".." / "neighbour"


def climbing(data: Path) -> Path:
    """An archive whose entries would be written above it, if anybody unpacked it."""
    file = data / "climbing.npz"
    images = data / "images.npy"
    np.save(images, np.zeros((4, SIZE, SIZE), np.uint8))
    with zipfile.ZipFile(file, "w") as archive:
        for name in ("../train_images.npy", "../../train_labels.npy", "/tmp/train_images.npy"):
            archive.write(images, name)
            archive.filelist[-1].filename = name
    images.unlink()
    return file


def bomb(data: Path) -> Path:
    """A kilobyte whose header promises 90 GB."""
    file = data / "bomb.npz"
    header = b"{'descr': '|u1', 'fortran_order': False, 'shape': (1000000, 300, 300), }"
    with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("train_images.npy", "train_labels.npy"):
            archive.writestr(name, b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header)
    return file


@pytest.mark.parametrize("trap", [outside, above, climbing, bomb], ids=lambda trap: trap.__name__)
async def test_nothing_is_unpacked_and_nothing_outside_the_data_root_is_read(
    federation: Federation, trap: Any
) -> None:
    """PyGrid: `tar.extractall` on uploads. Nobody uploads here, and owners cannot be tricked either."""
    folder = federation.cluster.folder("hospital-alpha")
    path = trap(folder / "data")
    before = set(folder.rglob("*.npy"))
    name = f"trap-{trap.__name__}"
    request = hospital_pb2.PublishDatasetRequest(request_id=new_id("request"), name=name, path=str(path))
    async with open_session(owners_profile(federation.cluster, "alpha")) as owner:
        with pytest.raises(TrefoilError) as told:
            await translate(owner.hospital.PublishDataset(request, timeout=60))
        assert isinstance(told.value, PermissionDenied | InvalidInput | TooLarge)
        listed = await owner.hospital.ListDatasets(hospital_pb2.ListDatasetsRequest())
    assert name not in [dataset.name for dataset in listed.datasets]
    assert set(folder.rglob("*.npy")) == before
