"""A hospital that disappears at any step of sending: the others' mean, and nothing of it stays."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pytest

from libs.core.errors import FailedPrecondition, NotFound
from libs.core.ids import PARTIES, PartyId
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc._generated.trefoil.types.v1 import types_pb2
from libs.rpc.channel import translated
from tests.fakes.party_rig import (
    HOSPITALS,
    STUDY,
    WEIGHTS,
    PartyRig,
    contribution_ref,
    model_ref,
    open_request,
    round_ref,
    terms_of,
)

LENGTH, METRICS = 2000, 4
SCALE = 2**20
UPDATES = np.random.default_rng(3).normal(size=(3, LENGTH))
CHUNK = 1000
AGGREGATED = party_pb2.CloseRoundResponse.OUTCOME_AGGREGATED
BELOW_QUORUM = party_pb2.CloseRoundResponse.OUTCOME_BELOW_QUORUM
GONE = 2
"""The hospital that disappears."""


def contribution(hospital: int) -> np.ndarray:
    weighted = np.rint(float(WEIGHTS[hospital]) * UPDATES[hospital] * SCALE).astype(np.int64)
    return np.concatenate([weighted.astype(np.uint32), np.full(METRICS, hospital + 1, np.uint32)])


def mean_over(hospitals: Sequence[int]) -> np.ndarray:
    weights = np.array([float(WEIGHTS[h]) for h in hospitals])
    return (weights[:, None] * UPDATES[list(hospitals)]).sum(axis=0) / weights.sum()


@dataclass
class Sending:
    """A contribution in three shares without seeds, each sent as far as a test wants."""

    rig: PartyRig
    hospital: int
    upload_id: str
    shares: list[bytes] = field(default_factory=list)

    def __post_init__(self) -> None:
        vector = contribution(self.hospital)
        parts = np.random.default_rng(9).integers(0, 2**32, (2, len(vector)), dtype=np.uint32)
        self.shares = [part.tobytes() for part in (*parts, vector - parts[0] - parts[1])]

    def header(self, party: PartyId, offset: int = 0) -> types_pb2.ShareHeader:
        return types_pb2.ShareHeader(
            upload_id=self.upload_id,
            vector=contribution_ref(1),
            ring=types_pb2.RING_32,
            length=LENGTH + METRICS,
            vector_sha256=hashlib.sha256(self.shares[party]).digest(),
            terms=terms_of(HOSPITALS[self.hospital]),
            offset=offset,
        )

    async def whole(self, party: PartyId, *, offset: int = 0) -> None:
        """Send what there is from `offset` on."""

        async def requests() -> AsyncIterator[Any]:
            yield party_pb2.PutSharesRequest(header=self.header(party, offset))
            for at in range(offset, len(self.shares[party]), CHUNK):
                yield party_pb2.PutSharesRequest(chunk=self.shares[party][at : at + CHUNK])

        with translated():
            await (await self.rig.stub(party, HOSPITALS[self.hospital])).PutShares(requests())

    async def break_off(self, party: PartyId, *, chunks: int = 3) -> int:
        """Disappear after so many chunks; how many bytes the party has, some at least."""
        stub = await self.rig.stub(party, HOSPITALS[self.hospital])

        async def requests() -> AsyncIterator[Any]:
            yield party_pb2.PutSharesRequest(header=self.header(party))
            for at in range(0, chunks * CHUNK, CHUNK):
                yield party_pb2.PutSharesRequest(chunk=self.shares[party][at : at + CHUNK])
            await asyncio.sleep(60)

        for _ in range(50):
            call = stub.PutShares(requests())
            await asyncio.sleep(0.05)
            call.cancel()
            if received := await self.received(party):
                return received
        raise AssertionError("not a single chunk arrived")

    async def received(self, party: PartyId) -> int:
        """What the party says that it has."""
        request = party_pb2.DescribeUploadRequest(header=self.header(party))
        with translated():
            stub = await self.rig.stub(party, HOSPITALS[self.hospital])
            return int((await stub.DescribeUpload(request)).received_bytes)


async def open_round(rig: PartyRig, **fields: Any) -> None:
    await rig.tell_all("OpenRound", open_request(1, length=LENGTH, base_model_id="", **fields))


async def contribute(rig: PartyRig, *hospitals: int) -> None:
    for hospital in hospitals:
        await rig.deal(contribution(hospital), contribution_ref(1), HOSPITALS[hospital])


async def check_result(rig: PartyRig, survivors: Sequence[int]) -> None:
    result = await rig.fetch(model_ref(f"{STUDY}/round-1"), HOSPITALS[0])
    np.testing.assert_allclose(result.view(np.int32) / SCALE, mean_over(survivors), atol=8 / SCALE)


def unfinished(rig: PartyRig) -> list[int]:
    return [len(list((rig.folder / f"party-{party}" / "incoming").iterdir())) for party in PARTIES]


STEPS: dict[str, tuple[Sequence[int], Sequence[int]]] = {
    # name: (parties that have all of it, parties that it was sending to)
    "before sending": ((), ()),
    "while sending to one": ((), (0,)),
    "while sending to two": ((), (0, 1)),
    "while sending to three": ((), (0, 1, 2)),
    "after one has it": ((0,), ()),
    "after one has it, while sending to two": ((2,), (0, 1)),
    "after two have it": ((0, 1), ()),
    "after two have it, while sending to the third": ((0, 1), (2,)),
    "after all three have it": ((0, 1, 2), ()),
}


@pytest.mark.parametrize("step", STEPS)
async def test_a_hospital_that_disappears_counts_only_if_all_three_have_it(rig: PartyRig, step: str) -> None:
    complete, sending = STEPS[step]
    await open_round(rig)
    await contribute(rig, 0, 1)
    gone = Sending(rig, GONE, "upload-gone")
    for party in complete:
        await gone.whole(PartyId(party))
    for party in sending:
        await gone.break_off(PartyId(party))
    survivors = [0, 1, 2] if len(complete) == 3 else [0, 1]
    for answer in await rig.close_round(1):
        assert answer.outcome == AGGREGATED
        assert answer.survivor_identities == [HOSPITALS[h].uri for h in survivors]
    await check_result(rig, survivors)
    assert unfinished(rig) == [0, 0, 0]
    for party in PARTIES:  # what it still has to send comes too late, whether it asks first or not
        with pytest.raises(FailedPrecondition, match="is closed and cannot take a contribution"):
            await gone.received(party)
        with pytest.raises(FailedPrecondition, match="is closed and cannot take a contribution"):
            await gone.whole(party)
    assert unfinished(rig) == [0, 0, 0]


async def test_a_hospital_that_comes_back_in_time_counts(rig: PartyRig) -> None:
    await open_round(rig)
    await contribute(rig, 0, 1)
    gone = Sending(rig, GONE, "upload-gone")
    await gone.whole(PartyId(0))
    for party in (PartyId(1), PartyId(2)):
        await gone.whole(party, offset=await gone.break_off(party))
    assert len((await rig.close_round(1))[0].survivor_identities) == 3
    await check_result(rig, [0, 1, 2])


async def test_an_upload_goes_on_after_its_round_fell_short(rig: PartyRig) -> None:
    """The round opens again, and the coordinator may wait for stragglers."""
    await open_round(rig)
    await contribute(rig, 0)
    gone = Sending(rig, GONE, "upload-gone")
    at = [await gone.break_off(party) for party in PARTIES]
    assert {answer.outcome for answer in await rig.close_round(1)} == {BELOW_QUORUM}
    for party in PARTIES:
        assert await gone.received(party) == at[party]
        await gone.whole(party, offset=at[party])
    assert {answer.outcome for answer in await rig.close_round(1)} == {AGGREGATED}
    await check_result(rig, [0, 2])


async def test_an_abandoned_round_forgets_what_was_sent_and_the_next_try_takes_none_of_it(
    rig: PartyRig,
) -> None:
    await open_round(rig)
    gone = Sending(rig, GONE, "upload-gone")
    await gone.whole(PartyId(0))
    await gone.break_off(PartyId(1))
    await rig.tell_all("AbandonRound", party_pb2.AbandonRoundRequest(round=round_ref(1)))
    assert unfinished(rig) == [0, 0, 0]
    with pytest.raises(NotFound):
        await gone.whole(PartyId(1))
    await open_round(rig, round=round_ref(1, attempt=1))
    with pytest.raises(FailedPrecondition, match="Try 0"):
        await gone.received(PartyId(1))


async def test_a_late_share_that_is_on_its_way_when_the_round_closes_is_ended(rig: PartyRig) -> None:
    """Nobody waits for it, and its room is free at once."""
    await open_round(rig)
    await contribute(rig, 0, 1)
    gone = Sending(rig, GONE, "upload-gone")
    stub = await rig.stub(PartyId(0), HOSPITALS[GONE])

    async def requests() -> AsyncIterator[Any]:
        yield party_pb2.PutSharesRequest(header=gone.header(PartyId(0)))
        while True:
            yield party_pb2.PutSharesRequest(chunk=b"x")
            await asyncio.sleep(0.01)

    call = stub.PutShares(requests())
    async with asyncio.timeout(10):
        while unfinished(rig)[0] == 0:  # noqa: ASYNC110 - the condition is a folder's content
            await asyncio.sleep(0.01)
    async with asyncio.timeout(10):
        await rig.close_round(1)
    assert unfinished(rig) == [0, 0, 0]
    with pytest.raises(Exception, match=r"round is over|link broke"), translated():
        await asyncio.wait_for(call, 10)
