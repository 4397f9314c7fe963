"""A real HTTPS server on loopback that answers as a test says; issuers' keys and tokens made by joserfc."""

from __future__ import annotations

import asyncio
import ipaddress
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID
from joserfc import jwk
from joserfc import jwt as joserfc_jwt

NOON = datetime(2026, 11, 23, 12, tzinfo=UTC)
ISSUER, AUDIENCE = "https://id.alpha.example", "hospital-alpha"
EVERY_ALGORITHM = ["HS256", "HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA", "Ed25519"]


class TurnedClock:
    """A clock that tests turn."""

    def __init__(self) -> None:
        self.seconds = 0.0

    def now(self) -> datetime:
        return NOON + timedelta(seconds=self.seconds)

    def monotonic_s(self) -> float:
        return self.seconds


def claims(*, now: datetime = NOON, **changed: Any) -> dict[str, Any]:
    """What a good token says; a claim set to None is left out."""
    at = int(now.timestamp())
    said = {
        "iss": ISSUER,
        "aud": AUDIENCE,
        "sub": "dana",
        "role": "scientist",
        "iat": at,
        "exp": at + 600,
        "jti": "token-1",
        **changed,
    }
    return {name: value for name, value in said.items() if value is not None}


def signed(key: Any, algorithm: str, said: dict[str, Any] | None = None, **header: Any) -> str:
    """A token that joserfc made."""
    return joserfc_jwt.encode({"alg": algorithm, **header}, said or claims(), key, algorithms=EVERY_ALGORITHM)


def rsa_key(kid: str = "rsa", *, bits: int = 2048) -> jwk.RSAKey:
    return jwk.RSAKey.generate_key(bits, {"kid": kid, "use": "sig"})


def ec_key(kid: str = "ec", *, curve: Any = "P-256") -> jwk.ECKey:
    return jwk.ECKey.generate_key(curve, {"kid": kid, "use": "sig"})


def ed_key(kid: str = "ed") -> jwk.OKPKey:
    return jwk.OKPKey.generate_key("Ed25519", {"kid": kid, "use": "sig"})


@dataclass(frozen=True)
class Asked:
    """One request as it arrived."""

    method: str
    headers: dict[str, str]
    body: bytes


@dataclass
class HttpsService:
    """Answers every request with what `answer` says: status and body. Keeps what it was asked."""

    answer: Callable[[Asked], tuple[int, bytes]]
    url: str = ""
    ca: Path = Path()
    asked: list[Asked] = field(default_factory=list)
    delay_s: float = 0.0
    headers: bytes = b""

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            head = (await reader.readuntil(b"\r\n\r\n")).decode().split("\r\n")
            headers = {
                name.lower(): value for name, _, value in (line.partition(": ") for line in head[1:] if line)
            }
            body = await reader.readexactly(int(headers.get("content-length", "0")))
            self.asked.append(Asked(head[0].split()[0], headers, body))
            await asyncio.sleep(self.delay_s)
            status, answer = self.answer(self.asked[-1])
            writer.write(
                b"HTTP/1.1 %d Said\r\ncontent-length: %d\r\nconnection: close\r\n%s\r\n"
                % (status, len(answer), self.headers)
                + answer
            )
            await writer.drain()
        except (OSError, asyncio.IncompleteReadError):
            pass  # the client went away, as some tests have it
        finally:
            writer.close()


@asynccontextmanager
async def https_service(
    folder: Path, answer: Callable[[Asked], tuple[int, bytes]]
) -> AsyncIterator[HttpsService]:
    """A service on https://127.0.0.1 with a certificate of its own CA."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(*loopback_certificate(folder))
    service = HttpsService(answer, ca=folder / "ca.crt")
    server = await asyncio.start_server(service.serve, "127.0.0.1", 0, ssl=context)
    service.url = f"https://127.0.0.1:{server.sockets[0].getsockname()[1]}/"
    try:
        yield service
    finally:
        server.close()
        await server.wait_closed()


def loopback_certificate(folder: Path) -> tuple[Path, Path]:
    """A certificate for 127.0.0.1 and its key, and the `ca.crt` that vouches for it, in `folder`."""
    folder.mkdir(exist_ok=True)
    ca_key, key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    ca = _signed("test CA", ca_key.public_key(), "test CA", ca_key, is_ca=True)
    leaf = _signed("127.0.0.1", key.public_key(), "test CA", ca_key, is_ca=False)
    (folder / "ca.crt").write_bytes(ca.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.crt").write_bytes(leaf.public_bytes(serialization.Encoding.PEM))
    (folder / "tls.key").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
        )
    )
    return folder / "tls.crt", folder / "tls.key"


def _signed(
    name: str, public: Any, issuer: str, key: ec.EllipticCurvePrivateKey, *, is_ca: bool
) -> x509.Certificate:
    def named(text: str) -> x509.Name:
        return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])

    now = datetime.now(UTC)
    builder = (
        x509.CertificateBuilder()
        .subject_name(named(name))
        .issuer_name(named(issuer))
        .public_key(public)
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - timedelta(minutes=5))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=is_ca, path_length=None), critical=True)
        .add_extension(x509.SubjectKeyIdentifier.from_public_key(public), critical=False)
        .add_extension(x509.AuthorityKeyIdentifier.from_issuer_public_key(key.public_key()), critical=False)
        .add_extension(
            x509.KeyUsage(not is_ca, False, False, False, False, is_ca, is_ca, False, False), critical=True
        )
    )
    if not is_ca:
        address = x509.IPAddress(ipaddress.ip_address(name))
        builder = builder.add_extension(x509.SubjectAlternativeName([address]), critical=False)
    return builder.sign(key, hashes.SHA256())
