"""A peer that breaks the rules: its computation or its stream ends, and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from libs.core.errors import (
    PeerViolation,
    Unavailable,
)
from libs.rpc import peer_link
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc.peer_frames import PART_BYTES
from libs.rpc.peer_link import PeerLink
from tests.fakes.peer_wire import P0, P1, Frame, Wire, both, connected, exchange


def data_frames(**fields: Any) -> Frame:
    defaults = {"computation_id": "c-1", "sequence": 1, "label": "step", "parts": 1}
    header = party_pb2.ArrayHeader(name="m", dtype=party_pb2.ArrayHeader.DTYPE_UINT32, shape=[3])
    frame = Frame(data=party_pb2.PeerData(**{**defaults, "payload": bytes(12), **fields}))
    if "arrays" not in fields:
        frame.data.arrays.append(header)
    return frame


def header(**fields: Any) -> party_pb2.ArrayHeader:
    defaults: dict[str, Any] = {"name": "m", "dtype": party_pb2.ArrayHeader.DTYPE_UINT32, "shape": [3]}
    return party_pb2.ArrayHeader(**{**defaults, **fields})


BAD_FRAMES = {
    "an earlier number": data_frames(sequence=0),
    "a later number": data_frames(sequence=2),
    "another label": data_frames(label="other"),
    "no label": data_frames(label=""),
    "an overlong label": data_frames(label="x" * 1000),
    "a part that is not the first": data_frames(part=1, parts=2),
    "no parts": data_frames(parts=0),
    "a part cut short": data_frames(parts=2),
    "fewer bytes": data_frames(payload=bytes(11)),
    "more bytes": data_frames(payload=bytes(13)),
    "another name": data_frames(arrays=[header(name="n")]),
    "two arrays of one name": data_frames(arrays=[header(), header()], payload=bytes(24)),
    "an array too many": data_frames(arrays=[header(), header(name="n")], payload=bytes(24)),
    "no array": data_frames(arrays=[], payload=b""),
    "another type": data_frames(arrays=[header(dtype=party_pb2.ArrayHeader.DTYPE_UINT16, shape=[6])]),
    "an unknown type": data_frames(arrays=[header(dtype=99)]),
    "another shape": data_frames(arrays=[header(shape=[1, 3])]),
    "a huge shape": data_frames(arrays=[header(shape=[2**40, 2**40])]),
    "too many dimensions": data_frames(arrays=[header(shape=[1] * 9 + [3])]),
    "more than is allowed": data_frames(arrays=[header(shape=[PART_BYTES // 4])], payload=bytes(PART_BYTES)),
}


@pytest.mark.parametrize("name", BAD_FRAMES)
async def test_a_bad_frame_is_a_violation_of_its_sender_and_ends_only_its_computation(name: str) -> None:
    def replace_step(frame: Frame) -> list[Frame]:
        is_target = frame.data.label == "step" and frame.data.computation_id == "c-1"
        return [BAD_FRAMES[name]] if is_target else [frame]

    async with connected(Wire(tamper=replace_step)) as wire:
        low, high = wire.sessions(max_bytes=1000)
        outcomes = await both(exchange(low, P1, 7), exchange(high, P0, 9))
        assert isinstance(outcomes[1], PeerViolation)
        assert outcomes[1].sender == 0
        low, high = wire.sessions("c-2")
        assert [r.tolist() for r in await both(exchange(low, P1, 7), exchange(high, P0, 9))] == [
            [9] * 3,
            [7] * 3,
        ]


def hello(party: int, key: bytes) -> list[Frame]:
    return [Frame(hello=party_pb2.PeerHello(party=party, public_key=key))]


BAD_STREAMS = {
    "data before the hello": lambda f: [data_frames(), f] if f.HasField("hello") else [f],
    "another party's hello": lambda f: [
        Frame(hello=party_pb2.PeerHello(party=2, public_key=f.hello.public_key))
    ],
    "a hello without a key": lambda f: hello(0, b""),
    "a key of low order": lambda f: hello(0, bytes(32)),
    "two hellos": lambda f: [f, f] if f.HasField("hello") else [f],
    "an empty frame": lambda f: [f, Frame()],
    "an abort with an overlong id": lambda f: [f, Frame(abort=party_pb2.PeerAbort(computation_id="x" * 999))],
}


@pytest.mark.parametrize("name", BAD_STREAMS)
async def test_a_bad_stream_is_closed(name: str) -> None:
    wire = Wire(tamper=BAD_STREAMS[name])
    running = asyncio.create_task(wire.run())
    await asyncio.sleep(0.02)
    assert wire.high.closed
    wire.low.close()
    await running
    assert isinstance(wire.outcomes[0], PeerViolation)


async def test_a_peer_that_says_no_hello_is_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_link, "HELLO_TIMEOUT_S", 0.02)

    async def silence() -> AsyncIterator[Frame]:
        await asyncio.sleep(10)
        yield Frame()

    link = PeerLink(me=P1, peer=P0)
    with pytest.raises(Unavailable, match="hello"):
        await link.read(silence())
    assert link.closed


async def test_memory_for_unknown_computations_is_bounded() -> None:
    async with connected() as wire:
        for i in range(2 * peer_link.EARLY_COMPUTATIONS):
            await wire.low.send(data_frames(computation_id=f"unknown-{i}", sequence=0))
        await wire.low.send(data_frames(computation_id="large", sequence=0, payload=bytes(5000)))
        await wire.low.send(data_frames(computation_id="later", sequence=1))
        await asyncio.sleep(0.05)
        assert len(wire.high._early) == peer_link.EARLY_COMPUTATIONS
        assert not {"large", "later"} & set(wire.high._early)
        assert {"large", "later", "unknown-0"} <= set(wire.low._ended), "the sender must be told"


async def test_a_fast_sender_waits_for_a_slow_stream(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(peer_link, "OUTBOX_BYTES", 100)
    link = PeerLink(me=P0, peer=P1)
    await link.send(data_frames(payload=bytes(101)))
    waiting = asyncio.create_task(link.send(data_frames()))
    await asyncio.sleep(0.01)
    assert not waiting.done()
    outgoing = link.outgoing()
    await anext(outgoing)
    await anext(outgoing)
    await waiting
    link.close()
    with pytest.raises(Unavailable):
        await link.send(data_frames())
