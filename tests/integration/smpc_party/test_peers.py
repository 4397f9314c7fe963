"""Links between parties come back, whatever broke them."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from libs.core.errors import InvalidInput
from libs.core.ids import PARTIES
from services.smpc_party import peers
from tests.fakes.party_rig import PartyRig


@pytest.mark.parametrize("error", [InvalidInput("The file tls.crt cannot be read."), ValueError("no PEM")])
async def test_dialling_goes_on_after_an_error_that_nobody_expected(
    keys: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    """A certificate that is being replaced is missing for a moment, or half written."""
    failures = [error] * 4
    dial = peers.open_channel

    def broken_at_first(**options: Any) -> Any:
        if failures:
            raise failures.pop()
        return dial(**options)

    monkeypatch.setattr(peers, "open_channel", broken_at_first)
    async with PartyRig(keys, tmp_path) as rig:
        async with asyncio.timeout(10):
            for me in PARTIES:
                session = await rig.parties[me].network.session(
                    f"probe-{me}", max_bytes=dict.fromkeys(PARTIES, 0)
                )
                assert session.computation_id == f"probe-{me}"
    assert not failures
