"""One federation of real processes for this folder: joined by the operator, claimed by its owners."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import grpc
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from libs.cli.demo import staff
from libs.cli.local_cluster import LocalCluster
from libs.cli.local_cluster.layout import tls_files
from libs.core.secret import Secret
from libs.rpc.channel import open_channel, translated
from libs.rpc.dev_ca import folder_name
from libs.rpc.identity import COORDINATOR, Identity, Kind, TlsFiles, party_identity
from libs.rpc.tokens import FEDERATION_AUDIENCE, FEDERATION_ISSUER, TokenSecret, read_token_secret
from tests.fakes.bad_tokens import RSA_ISSUER, TokenMaker

HOSPITALS = ("alpha", "beta", "gamma")
SERVICES: Mapping[str, Identity] = {
    "coordinator": COORDINATOR,
    "party-0": party_identity(0),
    "hospital-alpha": Identity(Kind.HOSPITAL, "alpha"),
}
"""Those of the access table."""
SCIENTIST, CLINIC, OPERATOR, STAFF_ALPHA, STAFF_BETA = (
    Identity(Kind.CLIENT, name) for name in ("scientist", "clinic", "operator", "staff-alpha", "staff-beta")
)
BETA = Identity(Kind.HOSPITAL, "beta")
LET_IN = grpc.StatusCode.OK


@dataclass
class Federation:
    """The cluster, and channels of anybody to any of SERVICES with any token."""

    cluster: LocalCluster
    maker: TokenMaker
    channels: dict[tuple[str, Identity], grpc.aio.Channel] = field(default_factory=dict)

    def files(self, identity: Identity) -> TlsFiles:
        """Certificate and key from the owner's own folder."""
        return tls_files(self.cluster.folder(folder_name(identity)))

    def token_of(self, client: str, name: str = "federation.token") -> str:
        """A token that the cluster made, from the folder of its owner."""
        return (self.cluster.folder(client) / "keys" / name).read_text("utf-8").strip()

    def channel(self, service: str, caller: Identity) -> grpc.aio.Channel:
        """Open until the test ends."""
        key = (service, caller)
        if key not in self.channels:
            self.channels[key] = open_channel(
                address=self.cluster.addresses[service],
                server=SERVICES[service],
                tls=self.files(caller),
            )
        return self.channels[key]

    async def answer(
        self, service: str, method: str, caller: Identity, token: str | None, request: bytes = b""
    ) -> grpc.StatusCode:
        """What one call ends with. Only for calls that are to be refused, or that ask for one message."""
        metadata = () if token is None else (("authorization", f"Bearer {token}"),)
        call = self.channel(service, caller).unary_stream(method)(request, metadata=metadata, timeout=20)
        try:
            async for _ in call:
                call.cancel()
                break
        except grpc.aio.AioRpcError as error:
            return error.code()
        return LET_IN

    async def close(self) -> None:
        """Channels belong to the event loop of one test."""
        await asyncio.gather(*(channel.close() for channel in self.channels.values()))
        self.channels.clear()


@pytest.fixture(scope="package")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Federation]:
    """Started once. Services of the access table also know an RSA issuer and a list of revocations."""
    root = tmp_path_factory.mktemp("holes")
    public_pem = _rsa_public_key()
    (root / "issuer.pem").write_bytes(public_pem)
    (root / "revoked.toml").write_text("version = 1\n")
    overrides: dict[str, dict[str, Any]] = {
        service: {
            "reflection": True,
            "token_revocations": str(root / "revoked.toml"),
            "token_keys": [
                {
                    "issuer": RSA_ISSUER,
                    "audience": service if service == "hospital-alpha" else FEDERATION_AUDIENCE,
                    "key": str(root / "issuer.pem"),
                }
            ],
        }
        for service in SERVICES
    }
    # Rounds are to end by the plan's deadline, not because a hospital was given up earlier.
    overrides["coordinator"] |= {"reattach_grace_s": 60.0}
    with LocalCluster(
        root / "cluster", hospitals=HOSPITALS, overrides=overrides, preapproved=False
    ) as cluster:
        asyncio.run(cluster.guard(_join(cluster)))
        yield Federation(cluster, _maker(cluster, public_pem, root / "revoked.toml"))


@pytest.fixture
async def federation(running: Federation) -> AsyncIterator[Federation]:
    """The same for one test."""
    yield running
    await running.close()
    running.cluster.check()


async def _join(cluster: LocalCluster) -> None:
    await staff.admit_hospitals(cluster)
    await staff.claim_nodes(cluster)


def _maker(cluster: LocalCluster, public_pem: bytes, revocations: Path) -> TokenMaker:
    def hospital(name: str) -> TokenSecret:
        secret = read_token_secret(cluster.folder(name) / "keys" / "jwt.secret")
        return TokenSecret(issuer=name, secret=secret, audience=name)

    secret = read_token_secret(cluster.root / "keys" / "federation" / "jwt.secret")
    federation = TokenSecret(issuer=FEDERATION_ISSUER, secret=secret, audience=FEDERATION_AUDIENCE)
    own = dict.fromkeys(SERVICES, federation)
    return TokenMaker(
        secrets=own | {"hospital-alpha": hospital("hospital-alpha")},
        foreign=hospital("hospital-beta"),
        public_pem=public_pem,
        revocations=revocations,
        certificates={
            identity.kind: tls_files(cluster.folder(folder_name(identity))).certificate.read_bytes()
            for identity in (STAFF_BETA, SERVICES["hospital-alpha"])
        },
    )


def _rsa_public_key() -> bytes:
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048).public_key()
    return key.public_bytes(serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)


def secrets_below(folder: Path) -> set[bytes]:
    """What is in every file with a secret."""
    names = ("jwt.secret", "*.key", "*.token")
    return {file.read_bytes() for name in names for file in folder.rglob(name)}


def password_of(cluster: LocalCluster, hospital: str) -> Secret[str]:
    """Of the hospital's owner."""
    return Secret(
        staff.owners_profile(cluster, hospital).with_name("owner.password").read_text("utf-8").strip()
    )


async def translate(call: Any) -> None:
    """Await a call that is made on a stub; raises the errors of `libs/core/errors.py`."""
    with translated():
        await call
