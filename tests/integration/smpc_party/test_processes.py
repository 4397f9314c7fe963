"""The three parties as processes of their own, one of which is killed."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
import time
from collections.abc import AsyncIterator
from pathlib import Path

import numpy as np
import pytest

from libs.core.errors import Unavailable
from libs.core.ids import PARTIES, PartyId
from libs.rpc.identity import party_identity
from tests.fakes.keys import tls_files
from tests.fakes.party_rig import HOSPITALS, PartyRig, SmallModel, model_ref

MODEL = "study-1/released"
START_TIMEOUT_S = 90.0


class ProcessRig(PartyRig):
    """The same rig, but each party is `python -m services.smpc_party`."""

    def __post_init__(self) -> None:
        super().__post_init__()
        self.processes: dict[PartyId, asyncio.subprocess.Process] = {}

    async def start(self, party: PartyId) -> None:
        """Start one party; `serving` waits for it."""
        self._channels = {key: channel for key, channel in self._channels.items() if key[0] != party}
        config = self.folder / f"party-{party}.toml"
        config.write_text(self._toml(party))
        with (self.folder / f"party-{party}.log").open("ab") as output:
            self.processes[party] = await asyncio.create_subprocess_exec(
                sys.executable,
                *("-m", "services.smpc_party", "--config", str(config)),
                stderr=output,
                env={**os.environ, "OMP_NUM_THREADS": "1"},
                cwd=Path(__file__).parents[3],
            )

    async def ready(self) -> None:
        """Wait until every party serves."""
        for party in PARTIES:
            await self.serving(party)

    async def serving(self, party: PartyId) -> None:
        async with asyncio.timeout(START_TIMEOUT_S):
            while not await self._answers(party):  # noqa: ASYNC110 - another process tells no events
                await asyncio.sleep(0.1)

    async def stop(self, party: PartyId) -> None:
        self.processes[party].terminate()
        assert await self.processes[party].wait() == 0

    async def kill(self, party: PartyId) -> None:
        self.processes[party].send_signal(signal.SIGKILL)
        await self.processes[party].wait()

    async def __aexit__(self, *_: object) -> None:
        await self.stack.aclose()
        for process in self.processes.values():
            if process.returncode is None:
                process.terminate()
            await process.wait()

    async def _answers(self, party: PartyId) -> bool:
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", self.ports[party])
        except OSError:
            return False
        writer.close()
        return True

    def _toml(self, party: PartyId) -> str:
        tls = tls_files(self.keys, party_identity(party))
        peers = "\n".join(
            f'[[peers]]\nindex = {p}\naddress = "{self.address(p)}"\nidentity = "{party_identity(p)}"'
            for p in PARTIES
            if p != party
        )
        return f"""
index = {party}
listen = "{self.address(party)}"
store = "store-{party}"
storage_key = "{self.keys}/party-{party}/storage.key"

[tls]
certificate = "{tls.certificate}"
key = "{tls.key}"
ca = "{tls.ca}"

[[token_secrets]]
issuer = "trefoil-federation"
secret = "{self.keys}/federation/jwt.secret"
audience = "trefoil"

{peers}
"""


@pytest.fixture
async def processes(keys: Path, tmp_path: Path) -> AsyncIterator[ProcessRig]:
    async with ProcessRig(keys, tmp_path) as rig:
        await rig.ready()
        yield rig


@pytest.mark.timeout(240)
async def test_an_evaluator_killed_in_mid_prediction_gives_a_clear_error_and_the_next_one_works(
    processes: ProcessRig, small_model: SmallModel
) -> None:
    rig, model = processes, small_model
    await rig.deal_model(model.parameters, model_id=MODEL, plan=model.plan.to_json())
    client = await rig.client()

    async def predict() -> float:
        assignment = await rig.open_prediction(MODEL, turn=0)
        began = time.perf_counter()
        result = await client.predict(assignment, model.plan, model.pixels(1))
        np.testing.assert_allclose(result.logits, model.logits(1), atol=0.02)
        return time.perf_counter() - began

    assert min([await predict() for _ in range(15)]) < 0.1

    assignment = await rig.open_prediction(MODEL, turn=0)
    victim = PartyId(2)

    async def kill_soon() -> None:
        await asyncio.sleep(0.005)
        await rig.kill(victim)

    began = time.monotonic()
    with pytest.raises(Unavailable):
        await asyncio.gather(client.predict(assignment, model.plan, model.pixels(1)), kill_soon())
    assert time.monotonic() - began < assignment.deadline_s

    await rig.start(victim)
    await rig.ready()
    vector = await rig.fetch(model_ref(MODEL), HOSPITALS[0])
    np.testing.assert_array_equal(vector, model.parameters)
    async with await rig.client() as fresh:
        client = fresh
        await predict()


async def test_a_party_stops_on_sigterm_and_says_what_is_wrong_with_its_settings(
    keys: Path, tmp_path: Path
) -> None:
    rig = ProcessRig(keys, tmp_path)
    await rig.start(PartyId(0))
    await rig.serving(PartyId(0))
    await rig.stop(PartyId(0))
    index = tmp_path / "store-0" / "index.db"
    assert index.stat().st_mode & 0o077 == 0
    config = tmp_path / "party-0.toml"
    config.write_text(config.read_text().replace("store =", "stoer ="))
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "services.smpc_party", "--config", str(config)),
        stderr=asyncio.subprocess.PIPE,
        cwd=Path(__file__).parents[3],
    )
    _, complaint = await process.communicate()
    assert process.returncode == 1
    assert b"stoer: is not a known key" in complaint
    assert b"Traceback" not in complaint
