"""Vectors over slow lines that break: they arrive once, and little is sent twice."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass

import numpy as np
import pytest

from libs.cli.local_cluster.link_emulator import Line, Relay
from libs.core.errors import FailedPrecondition, Unavailable
from libs.core.ids import PARTIES, PartyId
from libs.rpc.share_client import Patience
from tests.fakes.party_rig import (
    HOSPITALS,
    STUDY,
    PartyRig,
    contribution_ref,
    model_ref,
    open_request,
)

MBIT = 125_000
PATIENT = Patience(attempts=20, first_wait_s=0.05, longest_wait_s=0.5)
METRICS = 4


@dataclass
class SlowLines:
    """One line to each party: which of them gets a vector, not a seed, is drawn with each upload."""

    relays: Sequence[Relay]

    def sent_bytes(self) -> int:
        return sum(relay.sent_bytes for relay in self.relays)

    def received_bytes(self) -> int:
        return sum(relay.received_bytes for relay in self.relays)

    def cut(self) -> None:
        for relay in self.relays:
            relay.cut()


@asynccontextmanager
async def slow_lines(
    rig: PartyRig, *, mbit_per_s: float, to: Sequence[PartyId] = PARTIES
) -> AsyncIterator[SlowLines]:
    """Callers reach these parties over lines of this rate, with little room at the router in between."""
    rate = mbit_per_s * MBIT
    rig._channels.clear()
    async with AsyncExitStack() as stack:
        relays = []
        for party in to:
            relay = Relay(
                listen="127.0.0.1:0",
                target=rig.address(party),
                new_line=lambda: Line(delay_s=0.01, bytes_per_s=rate, buffer_bytes=8192),
            )
            relays.append(await stack.enter_async_context(relay))
            rig.reached_at[party] = f"127.0.0.1:{relay.port}"
        try:
            yield SlowLines(relays)
        finally:
            rig.reached_at.clear()
            rig._channels.clear()


async def cut_at(lines: SlowLines, carried: Callable[[], int], places: Sequence[int]) -> None:
    """Break the lines each time that so many bytes went over them."""
    for place in places:
        while carried() < place:  # noqa: ASYNC110 - a count tells no events
            await asyncio.sleep(0.005)
        lines.cut()


async def open_large_round(rig: PartyRig, length: int) -> None:
    request = open_request(1, length=length - METRICS, base_model_id="")
    await rig.tell_all("OpenRound", request)


def files(rig: PartyRig, folder: str) -> list[int]:
    return [len(list((rig.folder / f"party-{party}" / folder).iterdir())) for party in PARTIES]


async def contribution_over_a_bad_line(rig: PartyRig, length: int, *, mbit_per_s: float) -> None:
    vector = np.random.default_rng(6).integers(0, 2**32, length, dtype=np.uint32)
    zeros = np.zeros_like(vector)
    await open_large_round(rig, length)
    async with slow_lines(rig, mbit_per_s=mbit_per_s) as lines:
        places = [int(vector.nbytes * part) for part in (0.2, 0.5, 0.9)]
        cutting = asyncio.create_task(cut_at(lines, lines.sent_bytes, places))
        began_s = time.monotonic()
        await rig.deal(vector, contribution_ref(1), HOSPITALS[0], patience=PATIENT)
        took_s = time.monotonic() - began_s
        await asyncio.wait_for(cutting, 1)
        print(f"{vector.nbytes} bytes: {lines.sent_bytes()} sent in {took_s:.1f} s, cut {len(places)} times")
        assert vector.nbytes < lines.sent_bytes() < 1.1 * vector.nbytes
    assert files(rig, "shares") == [1, 1, 1]
    assert files(rig, "incoming") == [0, 0, 0]
    for hospital in HOSPITALS[1:]:
        await rig.deal(zeros, contribution_ref(1), hospital)
    await rig.close_round(1)
    result = await rig.fetch(model_ref(f"{STUDY}/round-1"), HOSPITALS[0])
    np.testing.assert_array_equal(result, vector[:-METRICS])


async def test_a_contribution_over_a_slow_line_that_breaks_three_times_arrives_once(rig: PartyRig) -> None:
    await contribution_over_a_bad_line(rig, 550_000, mbit_per_s=6)


@pytest.mark.slow
@pytest.mark.timeout(600)
async def test_a_contribution_of_45_mb_at_2_mbit_with_three_breaks_arrives_once(rig: PartyRig) -> None:
    await contribution_over_a_bad_line(rig, 11_200_000, mbit_per_s=2)


async def test_a_download_goes_on_where_the_line_broke(rig: PartyRig) -> None:
    vector = np.random.default_rng(7).integers(0, 2**32, 550_000, dtype=np.uint32)
    await rig.deal_model(vector, model_id=f"{STUDY}/v0")
    async with slow_lines(rig, mbit_per_s=8, to=[PartyId(1)]) as lines:
        places = [int(vector.nbytes * part) for part in (0.2, 0.5, 0.9)]
        cutting = asyncio.create_task(cut_at(lines, lines.received_bytes, places))
        fetched = await rig.fetch(model_ref(f"{STUDY}/v0"), HOSPITALS[0], patience=PATIENT)
        await asyncio.wait_for(cutting, 1)
        assert lines.received_bytes() < 1.1 * vector.nbytes
    np.testing.assert_array_equal(fetched, vector)


async def test_a_party_that_restarts_in_the_middle_of_an_upload_needs_only_its_rest(rig: PartyRig) -> None:
    vector = np.random.default_rng(8).integers(0, 2**32, 700_000, dtype=np.uint32)
    await open_large_round(rig, len(vector))
    async with slow_lines(rig, mbit_per_s=24) as lines:

        async def restart() -> None:
            while lines.sent_bytes() < 2_500_000:  # noqa: ASYNC110 - a count tells no events
                await asyncio.sleep(0.005)
            for party in PARTIES:
                await rig.stop(party)
                await rig.start(party)

        restarting = asyncio.create_task(restart())
        await rig.deal(vector, contribution_ref(1), HOSPITALS[0], patience=PATIENT)
        await restarting
        # At least one of its three pieces was on the disk.
        assert lines.sent_bytes() < 1.7 * vector.nbytes
    assert files(rig, "incoming") == [0, 0, 0]


async def test_attempts_that_get_nowhere_end(rig: PartyRig) -> None:
    vector = np.zeros(100_000, np.uint32)
    await open_large_round(rig, len(vector))
    patience = Patience(attempts=3, first_wait_s=0.01)
    async with slow_lines(rig, mbit_per_s=50) as lines:

        async def keep_cutting() -> None:
            while True:
                lines.cut()
                await asyncio.sleep(0.001)

        cutting = asyncio.create_task(keep_cutting())
        with pytest.raises(Unavailable):
            await rig.deal(vector, contribution_ref(1), HOSPITALS[0], patience=patience)
        cutting.cancel()


async def test_a_straggler_is_told_when_its_round_closes_and_nothing_of_it_stays(rig: PartyRig) -> None:
    vector = np.zeros(1_000_000, np.uint32)
    await open_large_round(rig, len(vector))
    for hospital in HOSPITALS[:2]:
        await rig.deal(vector, contribution_ref(1), hospital)
    async with slow_lines(rig, mbit_per_s=16) as lines:
        late = asyncio.create_task(rig.deal(vector, contribution_ref(1), HOSPITALS[2], patience=PATIENT))
        while lines.sent_bytes() < 300_000:  # noqa: ASYNC110 - a count tells no events
            await asyncio.sleep(0.01)
        assert sum(files(rig, "incoming")) > 0
        answers = await rig.close_round(1)
        assert {tuple(answer.survivor_identities) for answer in answers} == {
            (HOSPITALS[0].uri, HOSPITALS[1].uri)
        }
        assert files(rig, "incoming") == [0, 0, 0]
        with pytest.raises(FailedPrecondition, match="closed"):
            async with asyncio.timeout(20):
                await late
