"""No connection without the right certificate on both ends, and none below TLS 1.3."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path

import grpc
import pytest

from libs.core.errors import InvalidInput, Unauthenticated, Unavailable
from libs.rpc._generated.trefoil.party.v1 import party_pb2 as pb
from libs.rpc._generated.trefoil.party.v1 import party_pb2_grpc as pb_grpc
from libs.rpc.channel import translate, translated
from libs.rpc.dev_ca import DevelopmentCa
from libs.rpc.identity import COORDINATOR, Identity, Kind, TlsFiles, party_identity
from tests.fakes.keys import tls_files
from tests.fakes.rpc_rig import PARTY, Rig, code_of

REQUEST = pb.OpenRoundRequest()


class Past:
    """A clock two years ago."""

    def now(self) -> datetime:
        return datetime.now(UTC) - timedelta(days=730)

    def monotonic_s(self) -> float:
        return 0.0


async def refused_by_tls(stub: pb_grpc.PartyServiceStub, rig: Rig) -> None:
    """The call fails before any handler or interceptor."""
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.OpenRound(REQUEST, timeout=10)
    assert failure.value.code() is grpc.StatusCode.UNAVAILABLE
    assert code_of(failure.value) == "None"
    assert isinstance(translate(failure.value), Unavailable)
    assert rig.party.callers == []


async def test_the_right_certificates_on_both_ends_connect(rig: Rig) -> None:
    await rig.serve()
    await (await rig.stub(COORDINATOR)).OpenRound(REQUEST)
    assert rig.party.callers[0].identity == COORDINATOR


async def test_a_client_without_a_certificate_is_refused(rig: Rig, keys: Path) -> None:
    await rig.serve()
    ca = grpc.ssl_channel_credentials((keys / "ca" / "ca.crt").read_bytes())
    options = [("grpc.ssl_target_name_override", PARTY.dns_name)]
    async with grpc.aio.secure_channel(rig.address, ca, options=options) as channel:
        await refused_by_tls(pb_grpc.PartyServiceStub(channel), rig)


async def test_a_client_certificate_of_another_ca_is_refused(
    rig: Rig, keys: Path, foreign_keys: Path
) -> None:
    await rig.serve()
    foreign = tls_files(foreign_keys, COORDINATOR)
    tls = TlsFiles(certificate=foreign.certificate, key=foreign.key, ca=keys / "ca" / "ca.crt")
    await refused_by_tls(await rig.stub(COORDINATOR, tls=tls), rig)


async def test_a_server_certificate_of_another_ca_is_refused(
    rig: Rig, keys: Path, foreign_keys: Path
) -> None:
    foreign = tls_files(foreign_keys, PARTY)
    await rig.serve(tls=TlsFiles(certificate=foreign.certificate, key=foreign.key, ca=keys / "ca" / "ca.crt"))
    await refused_by_tls(await rig.stub(COORDINATOR), rig)


@pytest.mark.parametrize("impostor", [party_identity(1), COORDINATOR, Identity(Kind.HOSPITAL, "alpha")])
async def test_a_server_with_the_certificate_of_another_service_is_refused(
    rig: Rig, impostor: Identity
) -> None:
    await rig.serve(identity=impostor)
    await refused_by_tls(await rig.stub(COORDINATOR, server=PARTY), rig)


async def test_a_client_machine_cannot_pose_as_a_server(rig: Rig) -> None:
    client = Identity(Kind.CLIENT, "dana")
    await rig.serve(identity=client)
    await refused_by_tls(await rig.stub(COORDINATOR, server=client), rig)


async def test_an_expired_certificate_is_refused(rig: Rig, tmp_path: Path) -> None:
    ca = DevelopmentCa()
    ca.issue(PARTY, tmp_path / "server")
    ca._clock = Past()
    ca.issue(COORDINATOR, tmp_path / "client")
    await rig.serve(tls=_in(tmp_path / "server"))
    await refused_by_tls(await rig.stub(tls=_in(tmp_path / "client")), rig)


@pytest.mark.parametrize(
    "uris",
    [
        pytest.param([], id="no URI"),
        pytest.param(["spiffe://elsewhere.example/coordinator"], id="another trust domain"),
        pytest.param(["spiffe://trefoil.local/administrator"], id="unknown kind"),
        pytest.param(["spiffe://trefoil.local/coordinator/"], id="not exactly an identity"),
        pytest.param(["spiffe://trefoil.local/coordinator", "spiffe://trefoil.local/party/0"], id="two URIs"),
    ],
)
async def test_a_certificate_without_exactly_one_identity_is_refused(
    rig: Rig, tmp_path: Path, uris: list[str]
) -> None:
    ca = DevelopmentCa()
    ca.issue(PARTY, tmp_path / "server")
    ca.issue(COORDINATOR, tmp_path / "client", uris=uris)
    await rig.serve(tls=_in(tmp_path / "server"))
    stub = await rig.stub(tls=_in(tmp_path / "client"))
    with pytest.raises(grpc.aio.AioRpcError) as failure:
        await stub.OpenRound(REQUEST)
    assert failure.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert code_of(failure.value) == "unauthenticated"
    assert isinstance(translate(failure.value), Unauthenticated)
    assert rig.party.callers == []


def _in(folder: Path) -> TlsFiles:
    return TlsFiles(certificate=folder / "tls.crt", key=folder / "tls.key", ca=folder / "ca.crt")


def _python_tls(keys: Path, identity: Identity, *, server: bool, version: ssl.TLSVersion) -> ssl.SSLContext:
    """The standard library's TLS with an identity's files, in exactly one version."""
    files = tls_files(keys, identity)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER if server else ssl.PROTOCOL_TLS_CLIENT)
    context.load_cert_chain(files.certificate, files.key)
    context.load_verify_locations(files.ca)
    context.set_alpn_protocols(["h2"])
    context.minimum_version = context.maximum_version = version
    return context


async def _handshake(address: str, context: ssl.SSLContext) -> str:
    host, _, port = address.partition(":")
    _, writer = await asyncio.open_connection(host, int(port), ssl=context, server_hostname=PARTY.dns_name)
    version: str = writer.get_extra_info("ssl_object").version()
    writer.close()
    return version


async def test_a_server_accepts_tls_1_3_and_refuses_tls_1_2(rig: Rig, keys: Path) -> None:
    await rig.serve()
    newest = _python_tls(keys, COORDINATOR, server=False, version=ssl.TLSVersion.TLSv1_3)
    assert await _handshake(rig.address, newest) == "TLSv1.3"
    older = _python_tls(keys, COORDINATOR, server=False, version=ssl.TLSVersion.TLSv1_2)
    with pytest.raises((ssl.SSLError, ConnectionResetError)):  # gRPC hangs up with or without an alert
        await _handshake(rig.address, older)


@pytest.mark.parametrize(
    ("version", "connects"), [(ssl.TLSVersion.TLSv1_3, True), (ssl.TLSVersion.TLSv1_2, False)]
)
async def test_a_channel_does_not_speak_tls_1_2(
    rig: Rig, keys: Path, version: ssl.TLSVersion, connects: bool
) -> None:
    connected: list[bool] = []

    def accept(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        connected.append(True)
        writer.close()

    context = _python_tls(keys, PARTY, server=True, version=version)
    async with await asyncio.start_server(accept, "127.0.0.1", 0, ssl=context) as server:
        rig.address = f"127.0.0.1:{server.sockets[0].getsockname()[1]}"
        stub = await rig.stub(COORDINATOR)
        with pytest.raises(grpc.aio.AioRpcError):
            await stub.OpenRound(REQUEST, timeout=1)
        assert bool(connected) is connects


async def test_plaintext_is_refused(rig: Rig) -> None:
    await rig.serve()
    async with grpc.aio.insecure_channel(rig.address) as channel:
        await refused_by_tls(pb_grpc.PartyServiceStub(channel), rig)


def test_no_code_of_ours_can_open_a_plaintext_port_or_channel() -> None:
    root = Path(__file__).resolve().parents[3]
    sources = [path for top in ("libs", "services") for path in (root / top).rglob("*.py")]
    plaintext = (
        "insecure_channel",
        "add_insecure_port",
        "insecure_server_credentials",
        "local_server_credentials",
    )
    assert len(sources) > 20
    found = [
        str(path)
        for path in sources
        if "_generated" not in path.parts and any(name in path.read_text() for name in plaintext)
    ]
    assert found == []


async def test_a_taken_port_fails_with_a_clear_error(rig: Rig) -> None:
    taken = await rig.serve()
    with pytest.raises(Unavailable, match=rf"Cannot listen on {taken}: another process has the port"):
        await rig.serve(listen=taken)


async def test_a_port_taken_by_another_program_fails_with_a_clear_error(rig: Rig) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        listen = f"127.0.0.1:{other.getsockname()[1]}"
        with pytest.raises(Unavailable, match="another process has the port"):
            await rig.serve(listen=listen)


@pytest.mark.parametrize("listen", ["127.0.0.1", "localhost:http", ""])
async def test_an_address_without_a_port_is_refused(rig: Rig, listen: str) -> None:
    with pytest.raises(InvalidInput, match="host:port"):
        await rig.serve(listen=listen)


async def test_missing_and_wrong_key_files_are_named(rig: Rig, keys: Path, tmp_path: Path) -> None:
    good = tls_files(keys, PARTY)
    with pytest.raises(InvalidInput, match=r"absent\.key cannot be read: No such file"):
        await rig.serve(tls=TlsFiles(certificate=good.certificate, key=tmp_path / "absent.key", ca=good.ca))
    with pytest.raises(InvalidInput, match=r"tls\.crt holds no PEM private key"):
        await rig.serve(tls=TlsFiles(certificate=good.certificate, key=good.certificate, ca=good.ca))


async def test_a_private_key_that_everybody_may_read_is_refused(rig: Rig, keys: Path, tmp_path: Path) -> None:
    good = tls_files(keys, PARTY)
    exposed = tmp_path / "exposed.key"
    exposed.write_bytes(good.key.read_bytes())
    exposed.chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod 600"):
        await rig.serve(tls=TlsFiles(certificate=good.certificate, key=exposed, ca=good.ca))


async def test_a_server_that_is_not_there_is_unavailable(rig: Rig) -> None:
    rig.address = "127.0.0.1:1"
    with pytest.raises(Unavailable, match="cannot be reached"), translated():
        await (await rig.stub()).OpenRound(REQUEST)
