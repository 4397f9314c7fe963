from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from services.hospital_node.adapters.database import Database


@pytest.fixture
def store(tmp_path: Path) -> Iterator[Database]:
    database = Database(f"sqlite:///{tmp_path / 'hospital.db'}")
    yield database
    database.close()
