"""One set of keys for all tests; three parties for each."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.fakes.party_rig import PartyRig, SmallModel, make_keys


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_keys(tmp_path_factory.mktemp("federation"))


@pytest.fixture(scope="session")
def small_model() -> SmallModel:
    return SmallModel.make()


@pytest.fixture
async def rig(keys: Path, tmp_path: Path) -> AsyncIterator[PartyRig]:
    async with PartyRig(keys, tmp_path) as rig:
        yield rig
