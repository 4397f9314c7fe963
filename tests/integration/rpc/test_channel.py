"""What a channel adds to every call, and what a recorder keeps of it."""

from __future__ import annotations

import asyncio
import re
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from libs.core.errors import FailedPrecondition, InvalidInput, Unauthenticated, Unavailable
from libs.rpc._generated.trefoil.party.v1 import party_pb2 as pb
from libs.rpc.caller import Caller, calling_as
from libs.rpc.channel import open_channel, translated
from libs.rpc.dev_ca import issuing_secret
from libs.rpc.identity import COORDINATOR
from libs.rpc.recorder import Record, Recorder, read_records
from libs.rpc.tokens import Role, TokenIssuer
from tests.fakes.keys import tls_files
from tests.fakes.rpc_rig import CLIENT, PARTY, Rig

METHOD = "/trefoil.party.v1.PartyService/"


async def test_a_renewed_token_file_is_used_without_a_new_channel(rig: Rig) -> None:
    await rig.serve()
    stub = await rig.stub(CLIENT, token=rig.token(Role.CLINICIAN))
    (token_file,) = rig.token_files
    with pytest.raises(Exception, match="yours says clinician"):
        await stub.PutShares(iter([]))
    issuer = TokenIssuer(issuing_secret(rig.keys, "federation"))
    token_file.write_text(
        issuer.issue(subject="dana", role=Role.SCIENTIST, lifetime=timedelta(hours=1)) + "\n"
    )
    await stub.PutShares(iter([]))


async def test_a_token_file_that_everybody_may_read_is_refused(rig: Rig) -> None:
    await rig.serve()
    stub = await rig.stub(CLIENT, token=rig.token(Role.SCIENTIST))
    (token_file,) = rig.token_files
    token_file.chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod 600"):
        stub.PutShares(iter([]))


async def test_a_missing_or_empty_token_file_is_named(rig: Rig) -> None:
    await rig.serve()
    stub = await rig.stub(CLIENT, token="")
    with pytest.raises(Unauthenticated, match=r"\.token holds no token. Write a token into it"):
        stub.PutShares(iter([]))
    (token_file,) = rig.token_files
    token_file.unlink()
    with pytest.raises(Unauthenticated, match=r"\.token cannot be read"):
        stub.PutShares(iter([]))


@pytest.mark.parametrize("kind", ["one answer", "a stream of answers"])
async def test_a_service_that_cannot_be_reached_is_named_with_its_address(rig: Rig, kind: str) -> None:
    address = await rig.serve()
    assert rig.server is not None
    await rig.server.stop(grace_s=0)
    told = rf"^{re.escape(PARTY.uri)} at {re.escape(address)} cannot be reached"
    if kind == "one answer":
        stub = await rig.stub()
        with pytest.raises(Unavailable, match=told), translated():
            await stub.OpenRound(pb.OpenRoundRequest())
    else:
        stub = await rig.stub(CLIENT, token=rig.token(Role.SCIENTIST))
        with pytest.raises(Unavailable, match=told), translated():
            _ = [message async for message in stub.GetShares(pb.GetSharesRequest())]


async def test_the_request_id_of_a_call_is_passed_on_to_the_next_service(rig: Rig) -> None:
    await rig.serve()
    stub = await rig.stub()
    with calling_as(Caller(CLIENT, None, "request-of-the-first-call")):
        await stub.OpenRound(pb.OpenRoundRequest())
    await stub.OpenRound(pb.OpenRoundRequest())
    first, second = (caller.request_id for caller in rig.party.callers)
    assert first == "request-of-the-first-call"
    assert second.startswith("request-")
    assert second != first


async def test_a_restarted_server_is_found_again_by_the_same_channel(rig: Rig) -> None:
    address = await rig.serve()
    stub = await rig.stub()
    await stub.OpenRound(pb.OpenRoundRequest())
    assert rig.server is not None
    await rig.server.stop(grace_s=0)
    with pytest.raises(Unavailable), translated():
        await stub.OpenRound(pb.OpenRoundRequest())
    await rig.serve(listen=address)
    await stub.OpenRound(pb.OpenRoundRequest(), wait_for_ready=True, timeout=10)


async def test_a_bidirectional_stream_carries_messages_both_ways_at_any_time(rig: Rig) -> None:
    """The peers' long-lived stream: neither side waits for the other's turn."""
    await rig.serve()

    async def talk(_first: Any, context: Any) -> None:
        for number in range(3):
            await context.write(pb.PredictResponse(output_share_chunk=b"unasked %d" % number))
        while (message := await context.read()) and message.WhichOneof("part"):
            await context.write(pb.PredictResponse(output_share_chunk=message.masked_input_chunk))

    rig.party.on_call = talk
    stub = await rig.stub(CLIENT, token=rig.token(Role.CLINICIAN))
    call = stub.Predict()
    await call.write(pb.PredictRequest(masked_input_chunk=b"hello"))
    received = [(await call.read()).output_share_chunk for _ in range(4)]
    assert received == [b"hello", b"unasked 0", b"unasked 1", b"unasked 2"]
    await call.write(pb.PredictRequest(masked_input_chunk=b"again"))
    assert (await call.read()).output_share_chunk == b"again"
    call.cancel()


@pytest.mark.usefixtures("testing")
async def test_a_recorder_keeps_the_raw_bytes_of_every_message_received(rig: Rig, tmp_path: Path) -> None:
    at_server, at_client = Recorder(tmp_path / "server"), Recorder(tmp_path / "client")
    await rig.serve(recorder=at_server)
    stub = await rig.stub(CLIENT, token=rig.token(Role.SCIENTIST), recorder=at_client)
    await (await rig.stub(COORDINATOR)).OpenRound(pb.OpenRoundRequest(quorum=3))
    parts = [pb.PutSharesRequest(chunk=b"one"), pb.PutSharesRequest(chunk=b"two")]
    await stub.PutShares(iter(parts))
    _ = [message async for message in stub.GetShares(pb.GetSharesRequest())]
    call = stub.Predict()
    await call.write(pb.PredictRequest(masked_input_chunk=b"echo"))
    await call.done_writing()
    await call.read()
    await call.read()
    at_server.close()
    at_client.close()
    assert list(read_records(at_server.path)) == [
        Record("request", METHOD + "OpenRound", "unary", pb.OpenRoundRequest(quorum=3).SerializeToString()),
        *(Record("request", METHOD + "PutShares", "stream", part.SerializeToString()) for part in parts),
        Record("request", METHOD + "GetShares", "unary", b""),
        Record(
            "request",
            METHOD + "Predict",
            "stream",
            pb.PredictRequest(masked_input_chunk=b"echo").SerializeToString(),
        ),
    ]
    assert list(read_records(at_client.path)) == [
        Record(
            "response",
            METHOD + "PutShares",
            "unary",
            pb.PutSharesResponse(already_stored=True).SerializeToString(),
        ),
        Record(
            "response",
            METHOD + "GetShares",
            "stream",
            pb.GetSharesResponse(chunk=b"first").SerializeToString(),
        ),
        Record(
            "response",
            METHOD + "GetShares",
            "stream",
            pb.GetSharesResponse(chunk=b"second").SerializeToString(),
        ),
        Record(
            "response",
            METHOD + "Predict",
            "stream",
            pb.PredictResponse(output_share_chunk=b"echo").SerializeToString(),
        ),
    ]


@pytest.mark.usefixtures("testing")
async def test_a_recorder_keeps_what_a_refused_caller_sent(rig: Rig, tmp_path: Path) -> None:
    recorder = Recorder(tmp_path / "server")
    await rig.serve(recorder=recorder)
    with pytest.raises(Exception, match="does not allow this call"):
        await (await rig.stub(CLIENT)).OpenRound(pb.OpenRoundRequest(quorum=9))
    assert [record.data for record in read_records(recorder.path)] == [
        pb.OpenRoundRequest(quorum=9).SerializeToString()
    ]


def test_a_recorder_refuses_to_exist_outside_of_tests(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for value in (None, "", "0", "true"):
        monkeypatch.delenv("TREFOIL_TESTING", raising=False)
        if value is not None:
            monkeypatch.setenv("TREFOIL_TESTING", value)
        with pytest.raises(FailedPrecondition, match="for tests only"):
            Recorder(tmp_path / "records")
    assert not (tmp_path / "records").exists()


async def test_a_closed_channel_ends_its_calls(rig: Rig) -> None:
    await rig.serve()
    channel = open_channel(address=rig.address, server=PARTY, tls=tls_files(rig.keys, COORDINATOR))
    entered = asyncio.Event()

    async def wait(_request: Any, _context: Any) -> None:
        entered.set()
        await asyncio.sleep(60)

    rig.party.on_call = wait
    raw = channel.unary_unary(METHOD + "OpenRound")
    call = asyncio.ensure_future(raw(b""))
    await entered.wait()
    await channel.close()
    with pytest.raises(asyncio.CancelledError):
        await call


async def test_a_proxy_of_the_environment_is_not_used_for_this_machine(
    rig: Rig, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("http_proxy", "https_proxy", "grpc_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    await rig.serve()
    await (await rig.stub()).OpenRound(pb.OpenRoundRequest(), timeout=5)
