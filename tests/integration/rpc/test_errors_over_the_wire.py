"""An error means the same on both ends, for every kind of method, and a bug tells nothing."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any

import grpc
import pytest
from structlog.testing import capture_logs

from libs.core import errors
from libs.core.errors import Bug, InvalidInput, NotFound, PeerViolation, TooLarge, TrefoilError
from libs.rpc._generated.trefoil.party.v1 import party_pb2 as pb
from libs.rpc._generated.trefoil.party.v1 import party_pb2_grpc as pb_grpc
from libs.rpc.channel import translate, translated
from libs.rpc.error_catalog import CATALOGUE
from libs.rpc.identity import COORDINATOR
from libs.rpc.tls import channel_credentials
from libs.rpc.tokens import Role
from tests.fakes.keys import tls_files
from tests.fakes.rpc_rig import CLIENT, PARTY, Rig, code_of

SECRET_TEXT = "patient 7 at /data/person7.png has share 0xC0FFEE"


async def unary_unary(stub: Any) -> None:
    await stub.OpenRound(pb.OpenRoundRequest())


async def stream_unary(stub: Any) -> None:
    await stub.PutShares(iter([pb.PutSharesRequest(chunk=b"a")]))


async def unary_stream(stub: Any) -> None:
    """From an async generator that has already yielded."""
    call = stub.GetShares(pb.GetSharesRequest())
    assert (await call.read()).chunk == b"first"
    while await call.read() is not grpc.aio.EOF:
        pass


async def stream_stream(stub: Any) -> None:
    """From a handler in the read/write style."""
    call = stub.Predict()
    await call.write(pb.PredictRequest(masked_input_chunk=b"echo"))
    assert (await call.read()).output_share_chunk == b"echo"
    while await call.read() is not grpc.aio.EOF:
        pass


KINDS = [unary_unary, stream_unary, unary_stream, stream_stream]
Kind = Callable[[Any], Awaitable[None]]


async def calling(rig: Rig, kind: Kind) -> Any:
    """A stub that may call the kind's method."""
    await rig.serve()
    if kind is unary_unary:
        return await rig.stub(COORDINATOR)
    return await rig.stub(CLIENT, token=rig.token(Role.SCIENTIST))


def raising(error: Exception) -> Callable[..., Awaitable[None]]:
    async def fail(_request: Any, _context: Any) -> None:
        raise error

    return fail


def made(cls: type[TrefoilError]) -> TrefoilError:
    if cls is PeerViolation:
        return PeerViolation(computation="c-1", sender=2, rule="relu: sent 3 arrays")
    return cls("What happened, and what to do: naïve – ≤ 4.")


@pytest.mark.parametrize("kind", KINDS)
async def test_calls_without_errors_work(rig: Rig, kind: Kind) -> None:
    await kind(await calling(rig, kind))
    assert len(rig.party.callers) == 1


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "cls", [cls for cls in CATALOGUE if not issubclass(cls, Bug) and cls is not TrefoilError]
)
async def test_an_error_arrives_as_the_same_class_with_the_same_text(
    rig: Rig, kind: Kind, cls: type[TrefoilError]
) -> None:
    stub = await calling(rig, kind)
    error = made(cls)
    rig.party.on_call = raising(error)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await kind(stub)
    assert failure.value.code() is CATALOGUE[cls]
    assert code_of(failure.value) == cls.code
    arrived = translate(failure.value)
    assert (type(arrived), str(arrived)) == (cls, str(error))


async def test_a_peer_violation_arrives_with_who_broke_which_rule(rig: Rig) -> None:
    stub = await calling(rig, unary_unary)
    rig.party.on_call = raising(made(PeerViolation))
    with pytest.raises(PeerViolation) as arrived, translated():
        await unary_unary(stub)
    assert (arrived.value.computation, arrived.value.sender, arrived.value.rule) == (
        "c-1",
        "2",
        "relu: sent 3 arrays",
    )


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET_TEXT),
        errors.Bug(SECRET_TEXT),
        errors.MaskReuse(SECRET_TEXT),
        TrefoilError(SECRET_TEXT),
        ExceptionGroup(SECRET_TEXT, [NotFound("fine"), ValueError(SECRET_TEXT)]),
    ],
    ids=lambda error: type(error).__name__,
)
async def test_the_text_of_a_bug_does_not_leave_the_process(rig: Rig, kind: Kind, error: Exception) -> None:
    stub = await calling(rig, kind)
    rig.party.on_call = raising(error)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await kind(stub)
    assert failure.value.code() is grpc.StatusCode.INTERNAL
    request_id = rig.party.callers[0].request_id
    assert request_id in str(failure.value.details())
    told = f"{failure.value!r} {failure.value.trailing_metadata()} {failure.value.debug_error_string()}"
    for word in ("patient", "C0FFEE", "person7", "ValueError"):
        assert word not in told
    assert isinstance(translate(failure.value), Bug)


@pytest.mark.parametrize("kind", KINDS)
async def test_the_log_has_the_bug_under_the_request_id_that_the_caller_was_told(
    rig: Rig, kind: Kind
) -> None:
    stub = await calling(rig, kind)
    rig.party.on_call = raising(ValueError(SECRET_TEXT))
    with capture_logs() as logs, pytest.raises(grpc.aio.AioRpcError) as failure:
        await kind(stub)
    metadata = dict(failure.value.trailing_metadata() or ())
    assert metadata["x-request-id"] == rig.party.callers[0].request_id
    (event,) = [log for log in logs if log["event"] == "call_failed"]
    assert isinstance(event["exc_info"], ValueError)


async def test_an_error_from_a_task_group_is_the_error_itself(rig: Rig) -> None:
    stub = await calling(rig, unary_unary)

    async def fail(_request: Any, _context: Any) -> None:
        async with asyncio.TaskGroup() as group:
            group.create_task(raising(NotFound("There is no such round."))(None, None))

    rig.party.on_call = fail
    with pytest.raises(NotFound, match="no such round"), translated():
        await unary_unary(stub)


@pytest.mark.parametrize(
    ("method", "call"),
    [("OpenRound", "unary_unary"), ("GetShares", "unary_stream"), ("PutShares", "stream_unary")],
)
async def test_a_malformed_message_is_invalid_input(rig: Rig, method: str, call: str) -> None:
    await rig.serve()
    identity, token = (COORDINATOR, None) if method == "OpenRound" else (CLIENT, rig.token(Role.SCIENTIST))
    channel = await rig.channel(identity, token=token)
    garbage = b"\x0a\xff\xff"
    invoke = getattr(channel, call)(f"/trefoil.party.v1.PartyService/{method}")
    with capture_logs() as logs:
        result = invoke(iter([garbage]) if call.startswith("stream") else garbage)
        with pytest.raises(grpc.aio.AioRpcError) as failure:
            await (result.read() if call.endswith("stream") else result)
    assert isinstance(translate(failure.value), InvalidInput)
    assert rig.party.callers == []
    assert [log["code"] for log in logs if log["event"] == "call_failed"] == ["invalid_input"]


async def test_an_oversized_message_is_too_large_and_the_connection_lives_on(rig: Rig) -> None:
    await rig.serve()
    sender = await rig.stub(CLIENT, token=rig.token(Role.SCIENTIST))
    big = pb.PutSharesRequest(chunk=bytes(64 * 2**20 + 1))
    with pytest.raises(TooLarge, match="64 MiB"), translated():
        await sender.PutShares(iter([big]))
    await sender.PutShares(iter([pb.PutSharesRequest(chunk=b"a")]))


async def test_a_server_refuses_an_oversized_message_of_a_client_without_limits(rig: Rig) -> None:
    """Our channels refuse to send it; another client's must be refused by the server."""
    await rig.serve()
    options = (("grpc.max_send_message_length", -1), ("grpc.ssl_target_name_override", PARTY.dns_name))
    credentials = channel_credentials(tls_files(rig.keys, COORDINATOR))
    big = pb.OpenRoundRequest(plan=bytes(64 * 2**20 + 1))
    async with grpc.aio.secure_channel(rig.address, credentials, options=options) as channel:
        stub: Any = pb_grpc.PartyServiceStub(channel)
        with pytest.raises(grpc.aio.AioRpcError, match="larger than max") as failure:
            await stub.OpenRound(big)
    assert isinstance(translate(failure.value), TooLarge)
    assert rig.party.callers == []


async def test_a_cancelled_call_cancels_its_handler_and_is_no_error(rig: Rig) -> None:
    stub = await calling(rig, unary_stream)
    cancelled = asyncio.Event()

    async def wait(_request: Any, _context: Any) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            cancelled.set()
            raise

    rig.party.on_call = wait
    with capture_logs() as logs:
        call = stub.GetShares(pb.GetSharesRequest())
        await call.read()
        call.cancel()
        await asyncio.wait_for(cancelled.wait(), 30)
        await asyncio.sleep(0.05)
    assert "call_cancelled" in [log["event"] for log in logs]
    assert "call_failed" not in [log["event"] for log in logs]


async def test_a_deadline_of_the_client_cancels_the_handler(rig: Rig) -> None:
    stub = await calling(rig, unary_unary)
    cancelled = asyncio.Event()

    async def wait(_request: Any, _context: Any) -> None:
        try:
            await asyncio.sleep(60)
        finally:
            cancelled.set()

    rig.party.on_call = wait
    with pytest.raises(errors.DeadlineExceeded), translated():
        await stub.OpenRound(pb.OpenRoundRequest(), timeout=0.2)
    await asyncio.wait_for(cancelled.wait(), 30)


async def test_a_generator_is_closed_in_its_own_task_when_its_caller_goes_away(rig: Rig) -> None:
    """Not later by the garbage collector in another task, where what it holds is released too late."""
    closed = asyncio.Event()
    tasks: list[Any] = []

    async def endless(_self: Any, _request: Any, _context: Any) -> AsyncIterator[pb.GetSharesResponse]:
        tasks.append(asyncio.current_task())
        try:
            while True:
                yield pb.GetSharesResponse(chunk=bytes(2**20))  # fills the window: cancelled while it yields
        finally:
            tasks.append(asyncio.current_task())
            closed.set()

    rig.party.GetShares = endless.__get__(rig.party)  # type: ignore[method-assign]
    stub = await calling(rig, unary_stream)
    call = stub.GetShares(pb.GetSharesRequest())
    await call.read()
    await asyncio.sleep(0.1)
    call.cancel()
    await asyncio.wait_for(closed.wait(), 30)
    assert tasks[0] is tasks[1]


async def test_a_response_of_the_wrong_type_is_a_bug_that_tells_nothing(rig: Rig) -> None:
    async def wrong(_self: Any, _request: Any, _context: Any) -> Any:
        return SECRET_TEXT

    rig.party.OpenRound = wrong.__get__(rig.party)  # type: ignore[method-assign]
    stub = await calling(rig, unary_unary)
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await unary_unary(stub)
    assert failure.value.code() is grpc.StatusCode.INTERNAL
    assert code_of(failure.value) == "internal"
    assert "descriptor" not in repr(failure.value)


async def test_a_long_text_is_cut_rather_than_lost(rig: Rig) -> None:
    stub = await calling(rig, unary_unary)
    rig.party.on_call = raising(InvalidInput("Unsupported: " + "layer, " * 10_000))
    with pytest.raises(InvalidInput, match=r"^Unsupported: layer.*\[\.\.\.\]$"), translated():
        await unary_unary(stub)


@pytest.mark.parametrize(("sent", "kept"), [("request-1", True), ("a b;c=d", False), ("x" * 65, False)])
async def test_a_harmless_request_id_is_kept_and_any_other_replaced(rig: Rig, sent: str, kept: bool) -> None:
    await rig.serve()
    channel = await rig.channel(COORDINATOR)
    raw = channel._channel.unary_unary("/trefoil.party.v1.PartyService/OpenRound")  # type: ignore[attr-defined]
    await raw(b"", metadata=[("x-request-id", sent)])
    assert (rig.party.callers[0].request_id == sent) is kept
