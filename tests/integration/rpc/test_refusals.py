"""Every refused call is told to whoever keeps the audit trail: who, which method, why."""

from __future__ import annotations

from pathlib import Path

import grpc
import pytest

from libs.core.clock import SystemClock
from libs.core.errors import FailedPrecondition
from libs.rpc._generated.trefoil.party.v1 import party_pb2 as pb
from libs.rpc._generated.trefoil.party.v1.party_pb2_grpc import add_PartyServiceServicer_to_server
from libs.rpc.audit_service import own_trail
from libs.rpc.dev_ca import DevelopmentCa, issuing_secret
from libs.rpc.identity import COORDINATOR, Identity, TlsFiles, party_identity
from libs.rpc.server import RpcServer
from libs.rpc.tokens import Role, TokenVerifier
from libs.runtime.audit.refusals import Refusal
from tests.fakes.audit import AUDIT, issue
from tests.fakes.keys import tls_files
from tests.fakes.rpc_rig import CLIENT, HOSPITAL, PARTY, PARTY_SERVICE, Rig

PUT = "/trefoil.party.v1.PartyService/PutShares"
OPEN = "/trefoil.party.v1.PartyService/OpenRound"


async def serve(rig: Rig, tls: TlsFiles) -> list[Refusal]:
    """A server of the rig; what it refuses."""
    heard: list[Refusal] = []
    server = RpcServer(
        name="test",
        listen="127.0.0.1:0",
        tls=tls,
        tokens=TokenVerifier([issuing_secret(rig.keys, "federation")]),
        on_refusal=heard.append,
    )
    server.add(add_PartyServiceServicer_to_server, rig.party, PARTY_SERVICE)
    rig.address = f"127.0.0.1:{await server.start()}"
    rig.stack.push_async_callback(lambda: server.stop(grace_s=0))
    return heard


async def refused(rig: Rig, method: str, identity: Identity, *, token: str | None = None) -> None:
    channel = await rig.channel(identity, token=token)
    call = channel.unary_unary(method, pb.OpenRoundRequest.SerializeToString)
    with pytest.raises(grpc.aio.AioRpcError):
        await call(pb.OpenRoundRequest())


async def test_certificate_role_and_token_are_told_with_who_asked(rig: Rig) -> None:
    heard = await serve(rig, tls_files(rig.keys, PARTY))
    await refused(rig, OPEN, CLIENT)
    await refused(rig, PUT, HOSPITAL)
    await refused(rig, PUT, HOSPITAL, token=rig.token(Role.CLINICIAN))
    assert [(refusal.actor, refusal.method, refusal.code) for refusal in heard] == [
        (CLIENT.uri, OPEN, "permission_denied"),
        (HOSPITAL.uri, PUT, "unauthenticated"),
        (HOSPITAL.uri, PUT, "permission_denied"),
    ]
    assert all(refusal.request_id for refusal in heard)


async def test_made_up_methods_are_all_one(rig: Rig) -> None:
    """Each would be another kind of refusal, and another entry."""
    heard = await serve(rig, tls_files(rig.keys, PARTY))
    for number in range(3):
        await refused(rig, f"/made.Up/Method{number}", CLIENT)
    assert {refusal.method for refusal in heard} == {"an unlisted method"}


async def test_a_certificate_that_names_nobody_is_told_too(rig: Rig, tmp_path: Path) -> None:
    ca = DevelopmentCa()
    heard = await serve(rig, issue(ca, PARTY, tmp_path / "server"))
    ca.issue(COORDINATOR, tmp_path / "client", uris=["spiffe://elsewhere/coordinator"])
    folder = tmp_path / "client"
    stub = await rig.stub(tls=TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt"))
    with pytest.raises(grpc.aio.AioRpcError):
        await stub.OpenRound(pb.OpenRoundRequest())
    assert [(refusal.actor, refusal.code) for refusal in heard] == [
        ("a certificate that names nobody here", "unauthenticated")
    ]


def test_a_service_does_not_start_a_trail_with_anothers_certificate(rig: Rig) -> None:
    files = tls_files(rig.keys, PARTY)
    with pytest.raises(FailedPrecondition, match="Check the tls settings"):
        own_trail(me=party_identity(1), tables=AUDIT, tls=files, clock=SystemClock())
