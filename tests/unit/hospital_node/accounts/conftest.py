from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.hospital_node.adapters.transactions import Transactions
from tests.fakes.accounts import AccountRig


@pytest.fixture
def rig(transactions: Transactions, tmp_path: Path) -> Iterator[AccountRig]:
    made = AccountRig(transactions, tmp_path)
    yield made
    made.node.close()
