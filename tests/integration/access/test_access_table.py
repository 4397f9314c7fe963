"""Every row of `table.py` against every kind of certificate, every role, and every kind of bad token.

A real server for each service, with its own settings, certificates, sockets and interceptors. Behind them
every method only says that it was reached, so an answer says exactly who was let in.
"""

from __future__ import annotations

import asyncio
import importlib
import pkgutil
from collections.abc import AsyncIterator, Iterable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import grpc
import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa
from google.protobuf.descriptor import MethodDescriptor, ServiceDescriptor
from grpc_health.v1 import health_pb2
from grpc_reflection.v1alpha import reflection_pb2

from libs.core.errors import Unauthenticated
from libs.rpc import _generated
from libs.rpc.access_policy import ACCESS_POLICY
from libs.rpc.channel import open_channel
from libs.rpc.dev_ca import create_keys, issuing_secret
from libs.rpc.identity import COORDINATOR as COORDINATOR_IDENTITY
from libs.rpc.identity import Identity, Kind, party_identity
from libs.rpc.permissions import Permission
from libs.rpc.server import RpcServer
from libs.rpc.settings import RpcSettings
from libs.rpc.tokens import Role, TokenClaims, TokenIssuer, TokenSecret
from tests.fakes.bad_tokens import BAD_TOKENS, RSA_ISSUER, TokenMaker
from tests.fakes.keys import tls_files
from tests.integration.access.table import COORDINATOR, HOSPITAL, PARTY, ROWS, Row

IDENTITIES = {
    COORDINATOR: COORDINATOR_IDENTITY,
    PARTY: party_identity(0),
    HOSPITAL: Identity(Kind.HOSPITAL, "alpha"),
}
CALLERS = {
    Kind.COORDINATOR: COORDINATOR_IDENTITY,
    Kind.PARTY: party_identity(1),
    Kind.HOSPITAL: Identity(Kind.HOSPITAL, "beta"),
    Kind.CLIENT: Identity(Kind.CLIENT, "dana"),
}
OTHER_CLIENT = Identity(Kind.CLIENT, "eve")
OTHER_HOSPITAL = Identity(Kind.HOSPITAL, "gamma")
REACHED, NO, WHO = (
    grpc.StatusCode.DATA_LOSS,
    grpc.StatusCode.PERMISSION_DENIED,
    grpc.StatusCode.UNAUTHENTICATED,
)


# ---------------------------------------------------------------- the services


def descriptors() -> Iterator[ServiceDescriptor]:
    """All of ours."""
    for module in pkgutil.walk_packages(_generated.__path__, _generated.__name__ + "."):
        if module.name.endswith("_pb2"):
            yield from importlib.import_module(module.name).DESCRIPTOR.services_by_name.values()


OFFERED = {
    COORDINATOR: {"trefoil.coordinator.v1.CoordinatorService", "trefoil.audit.v1.AuditService"},
    PARTY: {
        "trefoil.party.v1.PartyService",
        "trefoil.party.v1.PeerService",
        "trefoil.audit.v1.AuditService",
    },
    HOSPITAL: {
        "trefoil.hospital.v1.HospitalService",
        "trefoil.hospital.v1.AccessService",
        "trefoil.hospital.v1.AccountService",
        "trefoil.audit.v1.AuditService",
    },
}
STANDARD = (health_pb2.DESCRIPTOR, reflection_pb2.DESCRIPTOR)


def test_every_rpc_of_every_service_is_a_row_and_no_other() -> None:
    services = {service.full_name: service for service in descriptors()}
    standard = {
        f"/{service.full_name}/{method.name}"
        for file in STANDARD
        for service in file.services_by_name.values()
        for method in service.methods
    }
    assert set().union(*OFFERED.values()) == set(services)
    for name, offered in OFFERED.items():
        methods = {f"/{service}/{method.name}" for service in offered for method in services[service].methods}
        assert {row.method for row in ROWS if row.service == name} == methods | standard
    assert {row.method for row in ROWS} == set(ACCESS_POLICY)


def handler(method: MethodDescriptor) -> grpc.RpcMethodHandler:
    """Says that it was reached."""

    async def unary(request: Any, context: Any) -> bytes:
        await context.abort(REACHED, "reached")
        raise AssertionError

    async def stream(request: Any, context: Any) -> AsyncIterator[bytes]:
        await context.abort(REACHED, "reached")
        yield b""

    if method.client_streaming:
        return (
            grpc.stream_stream_rpc_method_handler(stream)
            if method.server_streaming
            else grpc.stream_unary_rpc_method_handler(unary)
        )
    if method.server_streaming:
        return grpc.unary_stream_rpc_method_handler(stream)
    return grpc.unary_unary_rpc_method_handler(unary)


@dataclass
class Accounts:
    """What accounts of the hospital may do, by the subject of their token."""

    granted: dict[str, frozenset[Permission]] = field(default_factory=dict)

    async def grants(self, token: TokenClaims) -> frozenset[Permission]:
        if token.subject not in self.granted:
            raise Unauthenticated("Your session is over. Log in again.")
        return self.granted[token.subject]


class Services:
    """The three servers, and channels of everybody to them."""

    def __init__(self, root: Path) -> None:
        self.root, self.keys = root, root / "keys"
        create_keys(self.keys, hospitals=["alpha", "beta", "gamma"], clients=["dana", "eve"])
        self.rsa = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        public_pem = self.rsa.public_key().public_bytes(
            serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo
        )
        (root / "issuer.pem").write_bytes(public_pem)
        (root / "revoked.toml").write_text("version = 1\n")
        self.maker = TokenMaker(
            secrets={service: self.secret(service) for service in OFFERED},
            foreign=issuing_secret(self.keys, "hospital-beta"),
            public_pem=public_pem,
            revocations=root / "revoked.toml",
            certificates={
                identity.kind: tls_files(self.keys, identity).certificate.read_bytes()
                for identity in (OTHER_CLIENT, OTHER_HOSPITAL)
            },
        )
        self.accounts = Accounts()
        self.servers: list[RpcServer] = []
        self.addresses: dict[str, str] = {}
        self.channels: dict[tuple[str, Identity], grpc.aio.Channel] = {}

    def secret(self, service: str) -> TokenSecret:
        return issuing_secret(self.keys, service if service == HOSPITAL else "federation")

    def settings(self, service: str) -> RpcSettings:
        files, secret = tls_files(self.keys, IDENTITIES[service]), self.secret(service)
        own = {"issuer": secret.issuer, "audience": secret.audience}
        return RpcSettings.model_validate(
            {
                "listen": "127.0.0.1:0",
                "tls": {"certificate": files.certificate, "key": files.key, "ca": files.ca},
                "token_secrets": [{**own, "secret": files.key.parent / "jwt.secret"}],
                "token_keys": [
                    {"issuer": RSA_ISSUER, "audience": secret.audience, "key": self.root / "issuer.pem"}
                ],
                "token_revocations": self.root / "revoked.toml",
                "reflection": True,
            }
        )

    async def start(self) -> None:
        known = {service.full_name: service for service in descriptors()}
        for name, offered in OFFERED.items():
            grants = self.accounts.grants if name == HOSPITAL else None
            server = self.settings(name).server(name=name, recorder=None, grants=grants)
            for service in offered:
                handlers = {method.name: handler(method) for method in known[service].methods}
                generic = grpc.method_handlers_generic_handler(service, handlers)
                server.add(lambda it, to: to.add_generic_rpc_handlers((it,)), generic, service)
            self.addresses[name] = f"127.0.0.1:{await server.start()}"
            self.servers.append(server)

    def channel(self, service: str, caller: Identity) -> grpc.aio.Channel:
        key = (service, caller)
        if key not in self.channels:
            self.channels[key] = open_channel(
                address=self.addresses[service],
                server=IDENTITIES[service],
                tls=tls_files(self.keys, caller),
            )
        return self.channels[key]

    async def stop(self) -> None:
        for channel in self.channels.values():
            await channel.close()
        for server in self.servers:
            await server.stop(grace_s=0)

    async def answer(self, row: Row, caller: Identity, token: str | None) -> grpc.StatusCode:
        """What the call ends with."""
        channel = self.channel(row.service, caller)
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        try:
            call = channel.unary_stream(row.method)(b"", metadata=metadata, timeout=20)
            async for _ in call:  # health and reflection answer
                call.cancel()
                break
        except grpc.aio.AioRpcError as error:
            return error.code()
        return REACHED


@pytest.fixture
async def services(tmp_path: Path) -> AsyncIterator[Services]:
    made = Services(tmp_path)
    await made.start()
    yield made
    await made.stop()


Case = tuple[Row, str, Identity, str | None, grpc.StatusCode]
"""A call: the row, what is special about it, who calls, with which token, and how it ends."""


async def disagreements(services: Services, cases: Iterable[Case]) -> tuple[int, list[str]]:
    """How many calls were made, and those that ended otherwise than the table says."""
    gate = asyncio.Semaphore(32)

    async def one(case: Case) -> str | None:
        row, what, caller, token, expected = case
        async with gate:
            got = await services.answer(row, caller, token)
        return None if got is expected else f"{row.service} {row.method} {what}: {got}, not {expected}"

    answers = await asyncio.gather(*(one(case) for case in cases))
    return len(answers), [answer for answer in answers if answer is not None]


# ---------------------------------------------------------------- good tokens


async def test_every_rpc_admits_exactly_the_certificates_and_roles_of_its_row(services: Services) -> None:
    def cases() -> Iterator[Case]:
        for row in ROWS:
            for kind, caller in CALLERS.items():
                for role in (role for role in Role if role is not Role.STAFF):
                    good = row.without_token(kind) or (kind, role) in row.admitted
                    token = services.maker.good(row.service, role)
                    yield row, f"{kind.value} as {role.value}", caller, token, REACHED if good else NO

    count, wrong = await disagreements(services, cases())
    assert not wrong, "\n".join(wrong)
    assert count == len(ROWS) * len(Kind) * (len(Role) - 1)


async def test_an_account_needs_the_permission_of_the_row_and_no_other_helps(services: Services) -> None:
    accounts = services.accounts
    for permission in Permission:
        accounts.granted[f"has-{permission}"] = frozenset({permission})
        accounts.granted[f"lacks-{permission}"] = frozenset(Permission) - {permission}

    def cases() -> Iterator[Case]:
        for row in (row for row in ROWS if row.service == HOSPITAL and not row.without_token(Kind.CLIENT)):
            dana = CALLERS[Kind.CLIENT]
            for subject, expected in (
                (f"has-{row.permission}", NO if row.permission is None else REACHED),
                (f"lacks-{row.permission}", NO),
                ("logged-out", NO if row.permission is None else WHO),
            ):
                token = services.maker.good(HOSPITAL, Role.STAFF, subject=subject)
                yield row, f"account {subject}", dana, token, expected

    _, wrong = await disagreements(services, cases())
    assert not wrong, "\n".join(wrong)


async def test_the_role_staff_opens_nothing_where_there_are_no_accounts(services: Services) -> None:
    cases = [
        (row, "staff", CALLERS[Kind.CLIENT], services.maker.good(row.service, Role.STAFF), NO)
        for row in ROWS
        if row.service != HOSPITAL and not row.without_token(Kind.CLIENT)
    ]
    _, wrong = await disagreements(services, cases)
    assert not wrong, "\n".join(wrong)


# ---------------------------------------------------------------- bad tokens


@pytest.mark.parametrize("bad", BAD_TOKENS)
async def test_every_rpc_refuses_a_bad_token_whatever_role_it_claims(services: Services, bad: str) -> None:
    def cases() -> Iterator[Case]:
        forged = {
            (name, role): BAD_TOKENS[bad](services.maker, name, role) for name in OFFERED for role in Role
        }
        for row in ROWS:
            for role in Role:
                kind = Kind.HOSPITAL if role is Role.WORKER else Kind.CLIENT
                expected = REACHED if row.without_token(kind) else WHO if row.needs_token(kind) else NO
                token = forged[row.service, role]
                yield row, f"{bad}, as {role.value}", CALLERS[kind], token, expected

    count, wrong = await disagreements(services, cases())
    assert not wrong, "\n".join(wrong[:20])
    assert count == len(ROWS) * len(Role)


async def test_the_bad_tokens_are_bad_for_the_reason_that_they_name(services: Services) -> None:
    """Each forger's good twin is let in, so that none is refused for a slip of its own."""
    row = next(row for row in ROWS if row.method.endswith("/SearchDatasets"))
    dana = CALLERS[Kind.CLIENT]
    certificate = tls_files(services.keys, dana).certificate.read_bytes()
    issuer = TokenIssuer(services.secret(COORDINATOR))
    bound = issuer.issue(
        subject="dana", role=Role.SCIENTIST, lifetime=timedelta(hours=1), certificate=certificate
    )
    claims = services.maker.claims(COORDINATOR, Role.SCIENTIST, iss=RSA_ISSUER)
    signed = jwt.encode(claims, services.rsa, algorithm="RS256")
    kept = services.maker.good(COORDINATOR, Role.SCIENTIST, jti="not-revoked")
    for token in (bound, signed, kept):
        assert await services.answer(row, dana, token) is REACHED


async def test_a_certificate_of_another_ca_reaches_no_interceptor(services: Services, tmp_path: Path) -> None:
    foreign = tmp_path / "foreign"
    create_keys(foreign, hospitals=["beta"], clients=["dana"])
    row = next(row for row in ROWS if row.method.endswith("Health/Check"))
    for service in OFFERED:
        files = tls_files(foreign, CALLERS[Kind.CLIENT])
        trusted = tls_files(services.keys, IDENTITIES[service]).ca
        mixed = type(files)(certificate=files.certificate, key=files.key, ca=trusted)
        async with open_channel(
            address=services.addresses[service], server=IDENTITIES[service], tls=mixed
        ) as channel:
            with pytest.raises(grpc.aio.AioRpcError) as refused:
                await channel.unary_unary(row.method)(b"", timeout=5)
        assert refused.value.code() is grpc.StatusCode.UNAVAILABLE
