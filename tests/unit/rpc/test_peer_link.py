"""Two ends of a peer stream against each other; frames, and the driver of programs."""

from __future__ import annotations

import asyncio
from typing import Any

import numpy as np
import pytest

from libs.core.errors import (
    DeadlineExceeded,
    FailedPrecondition,
    MaskReuse,
    PeerViolation,
    TrefoilError,
    Unavailable,
)
from libs.mpc.program import ArraySpec, Program, Round
from libs.rpc._generated.trefoil.party.v1 import party_pb2
from libs.rpc.peer_frames import PART_BYTES, Assembler, FrameError, encode_message
from libs.rpc.run_party import run_party
from tests.fakes.peer_wire import EXECUTOR, P0, P1, U32, both, connected, exchange

# ---------------------------------------------------------------- the honest way


async def test_both_ends_agree_on_a_key_and_exchange_arrays() -> None:
    async with connected() as wire:
        low, high = wire.sessions()
        mine, theirs = await both(exchange(low, P1, 7), exchange(high, P0, 9))
        assert (mine.tolist(), theirs.tolist()) == ([9] * 3, [7] * 3)
        assert (low.rounds, low.sent_bytes, low.received_bytes) == (1, 12, 12)
        streams = [wire.low.key.for_computation("x"), wire.high.key.for_computation("x")]
        drawn = [stream.stream("mask").array((8,), U32).tolist() for stream in streams]
        assert drawn[0] == drawn[1]


async def test_every_stream_has_a_key_of_its_own() -> None:
    drawn = []
    for _ in range(2):
        async with connected() as wire:
            drawn.append(wire.low.key.for_computation("x").stream("mask").array((8,), U32).tolist())
    assert drawn[0] != drawn[1]


async def test_an_array_of_many_parts_arrives_aligned_and_writable() -> None:
    message = {
        "odd": np.arange(5, dtype=np.uint8),
        "large": np.random.default_rng(1).integers(0, 2**64, 400_000, dtype=np.uint64),
        "none": np.zeros((0, 3), U32),
        "square": np.arange(12, dtype=np.uint16).reshape(3, 4),
    }
    async with connected() as wire:
        low, high = wire.sessions()
        async with low, high:
            specs = {name: ArraySpec(a.dtype, a.shape) for name, a in message.items()}
            _, received = await both(low.send(P1, "step", message), high.receive(P0, "step", specs))
    for name, array in message.items():
        np.testing.assert_array_equal(received[name], array)
        assert received[name].flags.aligned
        assert received[name].flags.writeable


async def test_computations_do_not_wait_for_each_other() -> None:
    async with connected() as wire:
        pairs = [wire.sessions(f"c-{i}") for i in range(20)]
        swaps = [exchange(low, P1, i) for i, (low, _) in enumerate(pairs)]
        swaps += [exchange(high, P0, i) for i, (_, high) in reversed(list(enumerate(pairs)))]
        results = await asyncio.gather(*swaps)
        assert [r[0] for r in results[:20]] == list(range(20))


# ---------------------------------------------------------------- one end goes its own way


async def test_other_terms_end_the_computation_at_both_ends() -> None:
    async with connected() as wire:
        low, high = wire.sessions()
        outcomes = await both(exchange(low, P1, 1, terms=b"a"), exchange(high, P0, 1, terms=b"b"))
        assert any(isinstance(outcome, FailedPrecondition) for outcome in outcomes)
        assert all(isinstance(outcome, TrefoilError) for outcome in outcomes)


async def test_a_peer_that_does_not_join_is_not_waited_for_forever() -> None:
    async with connected() as wire:
        low, _ = wire.sessions()

        async def join() -> None:
            async with low:
                await low.join(b"terms", timeout_s=0.05)

        with pytest.raises(DeadlineExceeded, match="did not join"):
            await join()


async def test_an_error_at_one_end_ends_the_other_at_once() -> None:
    async def failing() -> None:
        async with low:
            await low.join(b"terms", timeout_s=1.0)
            raise ValueError

    async with connected() as wire:
        low, high = wire.sessions()
        outcomes = await both(failing(), exchange(high, P0, 1))
        assert isinstance(outcomes[0], ValueError)
        assert isinstance(outcomes[1], Unavailable)
        assert "Party 0 aborted" in str(outcomes[1])


async def test_an_abort_that_comes_first_ends_the_computation_when_it_begins() -> None:
    async with connected() as wire:
        low, high = wire.sessions()
        async with low:
            low._end("peer_violation")
        await asyncio.sleep(0.01)
        with pytest.raises(Unavailable, match="aborted"):
            await high.__aenter__()


async def test_a_link_that_breaks_ends_its_computations() -> None:
    async with connected() as wire:
        _, high = wire.sessions()
        waiting = asyncio.create_task(exchange(high, P0, 1))
        await asyncio.sleep(0.01)
        wire.high.close()
        with pytest.raises(Unavailable, match="down"):
            await waiting


async def test_what_waits_besides_messages_ends_with_the_session() -> None:
    async with connected() as wire:
        _, high = wire.sessions()

        async def idle() -> None:
            async with high:
                await high.guard(asyncio.get_running_loop().create_future())

        waiting = asyncio.create_task(idle())
        await asyncio.sleep(0.01)
        wire.high.close()
        with pytest.raises(Unavailable):
            await waiting


async def test_a_computation_id_is_good_for_one_computation() -> None:
    async with connected() as wire:
        low, high = wire.sessions()
        await both(exchange(low, P1, 7), exchange(high, P0, 9))
        again, _ = wire.sessions()
        with pytest.raises(FailedPrecondition, match="used before"):
            await again.__aenter__()
        assert low.masks()
        with pytest.raises(MaskReuse):
            low.masks()


async def test_a_message_that_nobody_awaits_is_a_violation() -> None:
    async def too_much() -> None:
        async with low:
            await low.join(b"terms", timeout_s=1.0)
            await low.send(P1, "surplus", {"m": np.zeros(1, U32)})
            await asyncio.sleep(0.05)

    async def nothing() -> None:
        async with high:
            await high.join(b"terms", timeout_s=1.0)
            await asyncio.sleep(0.02)

    async with connected() as wire:
        low, high = wire.sessions()
        outcomes = await both(too_much(), nothing())
        assert isinstance(outcomes[1], PeerViolation)
        assert "surplus" in str(outcomes[1])


# ---------------------------------------------------------------- frames and the driver


def test_a_message_of_any_size_survives_its_frames() -> None:
    for size in (0, 1, PART_BYTES // 4, PART_BYTES // 4 + 1, PART_BYTES):
        array = np.arange(size, dtype=U32)
        frames = list(encode_message("c", sequence=0, label="x", message={"a": array, "b": array[:1]}))
        assert all(len(frame.data.payload) <= PART_BYTES for frame in frames)
        assembler = Assembler(max_bytes=1 << 30)
        received = [assembler.feed(frame.data) for frame in frames]
        assert received[:-1] == [None] * (len(frames) - 1)
        assert received[-1] is not None
        np.testing.assert_array_equal(received[-1].message["a"], array)


def test_parts_of_one_message_in_another_order_are_refused() -> None:
    frames = list(encode_message("c", sequence=0, label="x", message={"a": np.zeros(PART_BYTES, U32)}))
    assembler = Assembler(max_bytes=1 << 30)
    assembler.feed(frames[0].data)
    with pytest.raises(FrameError, match="out of order"):
        assembler.feed(frames[2].data)


def header(*shape: int, name: str = "a") -> party_pb2.ArrayHeader:
    return party_pb2.ArrayHeader(name=name, dtype=party_pb2.ArrayHeader.DTYPE_UINT8, shape=shape)


@pytest.mark.parametrize("shape", [(0, 1 << 63), (0, 1 << 32, 1 << 32), (0, (1 << 64) - 1), (1 << 41,)])
def test_a_shape_that_numpy_would_refuse_breaks_a_rule_and_not_the_stream(shape: tuple[int, ...]) -> None:
    data = party_pb2.PeerData(label="x", parts=1, arrays=[header(*shape)])
    with pytest.raises(FrameError, match="impossible shape"):
        Assembler(max_bytes=1 << 30).feed(data)


def test_more_arrays_than_any_message_has_are_refused() -> None:
    arrays = [header(0, name=str(i)) for i in range(17)]
    with pytest.raises(FrameError, match="17 arrays"):
        Assembler(max_bytes=1 << 30).feed(party_pb2.PeerData(label="x", parts=1, arrays=arrays))


def test_empty_messages_use_the_allowance_up_too() -> None:
    assembler = Assembler(max_bytes=80)
    for sequence in range(10):
        assembler.feed(party_pb2.PeerData(label="x", parts=1, sequence=sequence))
    with pytest.raises(FrameError, match="more bytes"):
        assembler.feed(party_pb2.PeerData(label="x", parts=1, sequence=10))


def test_a_peer_cannot_send_more_than_the_computation_allows() -> None:
    frames = list(encode_message("c", sequence=0, label="x", message={"a": np.zeros(PART_BYTES, U32)}))
    assembler = Assembler(max_bytes=2 * PART_BYTES)
    for frame in frames[:2]:
        assembler.feed(frame.data)
    with pytest.raises(FrameError, match="more bytes"):
        assembler.feed(frames[2].data)


class Silence:
    """A transport for programs that need none."""

    rounds = 0

    async def send(self, *_: Any) -> None: ...

    async def receive(self, *_: Any) -> Any: ...


async def test_a_long_step_leaves_the_event_loop_free() -> None:
    def slow() -> Program[str]:
        import time

        time.sleep(0.2)
        yield Round("nothing")
        return "done"

    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            await asyncio.sleep(0.01)
            ticks += 1

    ticking = asyncio.create_task(tick())
    assert await run_party(slow(), Silence(), executor=EXECUTOR) == "done"
    ticking.cancel()
    assert ticks >= 5


async def test_an_error_in_a_program_reaches_the_caller() -> None:
    def failing() -> Program[None]:
        yield Round("nothing")
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        await run_party(failing(), Silence(), executor=EXECUTOR)
