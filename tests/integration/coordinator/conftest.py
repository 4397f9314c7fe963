"""One set of keys, and a federation per test that is stopped whatever happens."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from libs.rpc.dev_ca import create_keys
from tests.fakes.federation import Federation

Start = Callable[..., Awaitable[Federation]]


@pytest.fixture(scope="session")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("keys") / "trefoil"
    create_keys(folder, hospitals=["alpha", "beta", "gamma"], clients=["dana", "eve", "clinic"])
    return folder


@pytest.fixture
async def start(keys: Path, tmp_path: Path) -> AsyncIterator[Start]:
    """Starts a federation with the given coordinator settings."""
    async with AsyncExitStack() as stack:

        async def begin(**settings: Any) -> Federation:
            federation = Federation(keys, tmp_path, **settings)
            stack.push_async_callback(federation.stop)
            await federation.start()
            return federation

        yield begin


@pytest.fixture
async def federation(start: Start) -> Federation:
    """Three hospitals of 100, 200 and 300 images that do what they are asked."""
    made = await start()
    for name, images in (("alpha", 100), ("beta", 200), ("gamma", 300)):
        await made.add_hospital(name, images=images)
    return made
