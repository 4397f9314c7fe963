"""One set of keys for all tests; three parties for each."""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog

from libs.runtime.logging import configure_logging
from tests.fakes.party_rig import PartyRig, SmallModel, make_keys
from tests.fakes.prediction_talk import MODEL


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


@pytest.fixture
async def ready(rig: PartyRig, small_model: SmallModel) -> PartyRig:
    """Three parties that hold a released model."""
    await rig.deal_model(small_model.parameters, model_id=MODEL, plan=small_model.plan.to_json())
    return rig
