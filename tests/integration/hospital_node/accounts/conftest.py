from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from libs.rpc.dev_ca import create_keys
from tests.fakes.account_server import AccountServer, account_server
from tests.fakes.accounts import cheap_passwords


@pytest.fixture(scope="session")
def account_keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("account-keys") / "trefoil"
    create_keys(folder, hospitals=["alpha"], clients=["desk", "attic"])
    return folder


@pytest.fixture
async def server(account_keys: Path, tmp_path: Path) -> AsyncIterator[AccountServer]:
    async with account_server(account_keys, tmp_path, passwords=cheap_passwords()) as made:
        yield made
