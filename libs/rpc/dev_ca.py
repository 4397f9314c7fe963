"""A certificate authority for one machine: what `trefoil keys init` and the tests use.

For development. A federation of several organisations has its own CA issue certificates with the same URIs;
the services only ever see the files.
"""

from __future__ import annotations

import errno
import os
import secrets
import shutil
from collections.abc import Sequence
from datetime import datetime, timedelta
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from libs.core.clock import Clock, SystemClock
from libs.core.errors import AlreadyExists, InvalidInput
from libs.core.ids import PARTIES
from libs.rpc.identity import COORDINATOR, Identity, Kind, party_identity
from libs.rpc.tokens import (
    FEDERATION_AUDIENCE,
    FEDERATION_ISSUER,
    MIN_SECRET_BYTES,
    TokenSecret,
    read_token_secret,
)

LIFETIME = timedelta(days=365)
STORAGE_KEY_BYTES = 32


class DevelopmentCa:
    """Signs ECDSA P-256 certificates with an identity in them.

    Its key stays in memory unless it is written.
    """

    def __init__(self, *, clock: Clock | None = None) -> None:
        self._clock = clock or SystemClock()
        self._key = ec.generate_private_key(ec.SECP256R1())
        self._name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "Trefoil development CA")])
        public = self._key.public_key()
        self._identifier = x509.SubjectKeyIdentifier.from_public_key(public)
        self._certificate = (
            self._builder(self._name, public)
            .add_extension(x509.BasicConstraints(ca=True, path_length=0), critical=True)
            .add_extension(_key_usage(signs_certificates=True), critical=True)
            .add_extension(self._identifier, critical=False)
            .sign(self._key, hashes.SHA256())
        )

    def write(self, folder: Path) -> None:
        """Write `ca.crt` and `ca.key` into a new `folder`."""
        _new_folder(folder)
        _write(folder / "ca.key", _key_pem(self._key))
        _write(folder / "ca.crt", self._certificate_pem())

    def issue(self, identity: Identity, folder: Path, *, uris: Sequence[str] | None = None) -> None:
        """Write `tls.crt`, `tls.key` and `ca.crt` for `identity` into a new `folder`."""
        key = ec.generate_private_key(ec.SECP256R1())
        subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, identity.dns_name[:64])])
        names = [
            x509.DNSName(identity.dns_name),
            *(x509.UniformResourceIdentifier(uri) for uri in ([identity.uri] if uris is None else uris)),
        ]
        usages = [ExtendedKeyUsageOID.CLIENT_AUTH]
        if identity.kind is not Kind.CLIENT:
            usages.append(ExtendedKeyUsageOID.SERVER_AUTH)
        certificate = (
            self._builder(subject, key.public_key())
            .add_extension(x509.SubjectAlternativeName(names), critical=False)
            .add_extension(x509.BasicConstraints(ca=False, path_length=None), critical=True)
            .add_extension(_key_usage(signs_certificates=False), critical=True)
            .add_extension(x509.ExtendedKeyUsage(usages), critical=False)
            .add_extension(
                x509.AuthorityKeyIdentifier.from_issuer_subject_key_identifier(self._identifier),
                critical=False,
            )
            .sign(self._key, hashes.SHA256())
        )
        _new_folder(folder)
        _write(folder / "tls.key", _key_pem(key))
        _write(folder / "tls.crt", certificate.public_bytes(serialization.Encoding.PEM))
        _write(folder / "ca.crt", self._certificate_pem())

    def _certificate_pem(self) -> bytes:
        return self._certificate.public_bytes(serialization.Encoding.PEM)

    def _builder(self, subject: x509.Name, key: ec.EllipticCurvePublicKey) -> x509.CertificateBuilder:
        now: datetime = self._clock.now()
        return (
            x509.CertificateBuilder()
            .subject_name(subject)
            .issuer_name(self._name)
            .public_key(key)
            .serial_number(x509.random_serial_number())
            .not_valid_before(now - timedelta(minutes=5))  # machines whose clocks differ a little
            .not_valid_after(now + LIFETIME)
        )


def folder_name(identity: Identity) -> str:
    """Where an identity's files are below the keys' folder.

    `coordinator`, `party-0`, `hospital-<name>`, ...
    """
    return f"{identity.kind.value}-{identity.name}" if identity.name else identity.kind.value


def create_keys(
    folder: Path, *, hospitals: Sequence[str], clients: Sequence[str], clock: Clock | None = None
) -> None:
    """All keys of a federation on one machine, in a new `folder`: CA, certificates, secrets, storage keys.

    All or nothing: the folder appears when it is complete. AlreadyExists if it has anything in it, because
    new keys would lock services out of their own data. InvalidInput for a name that cannot be one.
    """
    services = [COORDINATOR, *(party_identity(int(index)) for index in PARTIES)]
    nodes = [Identity(Kind.HOSPITAL, name) for name in hospitals]
    others = [Identity(Kind.CLIENT, name) for name in clients]
    if len(set(nodes)) != len(nodes) or len(set(others)) != len(others):
        raise InvalidInput("Two hospitals or two clients have the same name.")
    unfinished = folder.parent / f".{folder.name}.{secrets.token_hex(4)}"
    try:
        _fill(unfinished, (*services, *nodes, *others), clock)
        unfinished.rename(folder)  # the system refuses a folder that has anything in it
    except OSError as error:
        if error.errno not in {errno.ENOTEMPTY, errno.EEXIST, errno.ENOTDIR}:
            raise
        raise AlreadyExists(
            f"{folder} exists already, and keys are never overwritten. Choose a new folder."
        ) from error
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _fill(folder: Path, identities: Sequence[Identity], clock: Clock | None) -> None:
    _new_folder(folder)
    ca = DevelopmentCa(clock=clock)
    ca.write(folder / "ca")
    federation = _new_secret(MIN_SECRET_BYTES)
    _new_folder(folder / "federation")
    _write(folder / "federation" / "jwt.secret", federation)
    for identity in identities:
        own = folder / folder_name(identity)
        ca.issue(identity, own)
        if identity.kind in {Kind.COORDINATOR, Kind.PARTY}:
            _write(own / "jwt.secret", federation)
        if identity.kind is Kind.HOSPITAL:
            _write(own / "jwt.secret", _new_secret(MIN_SECRET_BYTES))
        if identity.kind is Kind.PARTY:
            _write(own / "storage.key", _new_secret(STORAGE_KEY_BYTES))


def issuing_secret(folder: Path, issuer: str) -> TokenSecret:
    """The secret that signs tokens of `federation` or `hospital-<name>`. InvalidInput for other issuers."""
    own = issuing_folder(folder, issuer)
    secret = read_token_secret(own / "jwt.secret")
    if issuer == "federation":
        return TokenSecret(issuer=FEDERATION_ISSUER, secret=secret, audience=FEDERATION_AUDIENCE)
    return TokenSecret(issuer=own.name, secret=secret, audience=own.name)


def issuing_folder(folder: Path, issuer: str) -> Path:
    """Where the secret of `federation` or `hospital-<name>` is, below the folder of all keys.

    InvalidInput for other issuers.
    """
    if issuer == "federation":
        return folder / issuer
    kind, _, name = issuer.partition("-")
    if kind != Kind.HOSPITAL.value:
        raise InvalidInput(f"{issuer!r} issues no tokens; use federation or hospital-<name>.")
    return folder / folder_name(Identity(Kind.HOSPITAL, name))


def _key_usage(*, signs_certificates: bool) -> x509.KeyUsage:
    return x509.KeyUsage(
        digital_signature=not signs_certificates,
        key_cert_sign=signs_certificates,
        crl_sign=signs_certificates,
        content_commitment=False,
        key_encipherment=False,
        data_encipherment=False,
        key_agreement=False,
        encipher_only=False,
        decipher_only=False,
    )


def _key_pem(key: ec.EllipticCurvePrivateKey) -> bytes:
    return key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _new_secret(length: int) -> bytes:
    return secrets.token_hex(length).encode("ascii") + b"\n"


def _new_folder(folder: Path) -> None:
    folder.mkdir(mode=0o700, parents=True)


def _write(path: Path, content: bytes) -> None:
    """Create a file that was never readable by others; O_EXCL refuses one that exists, links included."""
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
        file.write(content)
