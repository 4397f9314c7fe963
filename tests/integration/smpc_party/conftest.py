"""One set of keys for all tests; three parties for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from libs.runtime.logging import configure_logging
from tests.fakes.party_rig import PartyRig, SmallModel, make_keys


@pytest.fixture(scope="package", autouse=True)
def _service_logs() -> Iterator[None]:
    """Logs as in production; structlog's default for terminals takes a second for each traceback."""
    configure_logging(service="parties", level="warning")
    yield
    structlog.reset_defaults()


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
