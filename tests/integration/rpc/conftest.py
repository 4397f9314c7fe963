"""Keys of a federation, made once, and a rig per test that closes what it opened."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.rpc.dev_ca import create_keys
from tests.fakes.rpc_rig import Rig


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "trefoil"
    create_keys(folder, hospitals=["alpha", "beta"], clients=["dana"])
    return folder


@pytest.fixture(scope="session")
def foreign_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same names from another CA."""
    folder = tmp_path_factory.mktemp("foreign") / "trefoil"
    create_keys(folder, hospitals=["alpha"], clients=["dana"])
    return folder


@pytest.fixture
async def rig(keys: Path, tmp_path: Path) -> AsyncIterator[Rig]:
    made = Rig(keys, tmp_path)
    async with made.stack:
        yield made


@pytest.fixture
def testing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TREFOIL_TESTING", "1")
