"""How long a transfer is tried."""

from __future__ import annotations

import pytest

from libs.core.errors import Unavailable
from libs.rpc.share_client import Patience, _Endurance


async def test_only_attempts_that_got_nowhere_count() -> None:
    endurance = _Endurance(Patience(attempts=2, first_wait_s=0.0))
    broken = Unavailable("The line broke.")
    for reached_bytes in (0, 10, 20, 30):
        await endurance.broke_off(broken, reached_bytes=reached_bytes)
    with pytest.raises(Unavailable):
        await endurance.broke_off(broken, reached_bytes=30)
