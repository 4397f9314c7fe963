from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from libs.data.export import export_part
from libs.data.phantom import make_phantoms
from libs.rpc.dev_ca import create_keys
from tests.fakes.hospital_federation import FakeFederation
from tests.fakes.orthanc import Orthanc, orthanc_server

IMAGES = 48


@pytest.fixture(scope="session")
def data_root(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A hospital's data folder with one data set of made-up radiographs in it."""
    root = tmp_path_factory.mktemp("hospital-data")
    export_part(make_phantoms(count=IMAGES, size=28, seed=1), root / "chest")
    return root


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "trefoil"
    create_keys(folder, hospitals=["alpha"], clients=["owner"])
    return folder


@pytest.fixture
async def federation(keys: Path) -> AsyncIterator[FakeFederation]:
    made = FakeFederation(keys)
    await made.start()
    yield made
    await made.stop()


@pytest.fixture(scope="session")
def archive() -> Iterator[Orthanc]:
    """A DICOM archive for this test process; tests put what they need into it."""
    with orthanc_server() as server:
        yield server
