"""A signature counts when the CA says whose key it was, and nothing was changed since."""

from __future__ import annotations

import datetime as dt
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, rsa
from cryptography.x509.oid import NameOID

from libs.core.errors import InvalidInput
from libs.rpc.dev_ca import DevelopmentCa
from libs.rpc.identity import COORDINATOR, Identity, Kind, TlsFiles, party_identity
from libs.rpc.signing import TlsSigner, check_signature, read_authorities
from tests.fakes.audit import issue
from tests.fakes.hospital_ports import NOW, FixedClock

MESSAGE = b"what was done"
KEYS = {
    "P-256": lambda: ec.generate_private_key(ec.SECP256R1()),
    "P-384": lambda: ec.generate_private_key(ec.SECP384R1()),
    "RSA": lambda: rsa.generate_private_key(65537, 2048),
    "Ed25519": ed25519.Ed25519PrivateKey.generate,
}


@pytest.fixture
def ca() -> DevelopmentCa:
    return DevelopmentCa(clock=FixedClock())


@pytest.fixture
def files(ca: DevelopmentCa, tmp_path: Path) -> TlsFiles:
    return issue(ca, party_identity(0), tmp_path / "party-0")


def check(
    files: TlsFiles,
    *,
    message: bytes = MESSAGE,
    signature: bytes | None = None,
    certificates: tuple[str, ...] | None = None,
    identity: Identity | None = None,
    at: dt.datetime = NOW,
) -> None:
    signer = TlsSigner(files)
    check_signature(
        message,
        signer.sign(MESSAGE) if signature is None else signature,
        certificates=signer.certificates if certificates is None else certificates,
        authorities=read_authorities(files.ca.read_bytes()),
        identity=(identity or party_identity(0)).uri,
        at=at,
    )


def test_a_service_signs_as_what_its_certificate_says(files: TlsFiles) -> None:
    assert TlsSigner(files).identity == party_identity(0).uri
    check(files)


@pytest.mark.parametrize("make_key", KEYS.values(), ids=KEYS.keys())
def test_every_kind_of_tls_key_signs(make_key: object, tmp_path: Path) -> None:
    check(_issued_elsewhere(make_key(), tmp_path))  # type: ignore[operator]


def test_what_was_changed_does_not_count(files: TlsFiles) -> None:
    signature = bytearray(TlsSigner(files).sign(MESSAGE))
    signature[-1] ^= 1
    with pytest.raises(InvalidInput, match="does not fit"):
        check(files, signature=bytes(signature))
    with pytest.raises(InvalidInput, match="does not fit"):
        check(files, message=MESSAGE + b".")


def test_another_service_signs_only_for_itself(files: TlsFiles) -> None:
    with pytest.raises(InvalidInput, match="not by"):
        check(files, identity=COORDINATOR)


def test_another_ca_vouches_for_nobody_here(files: TlsFiles, tmp_path: Path) -> None:
    forged = issue(DevelopmentCa(clock=FixedClock()), party_identity(0), tmp_path / "forged")
    signer = TlsSigner(forged)
    with pytest.raises(InvalidInput, match="not issued by this CA"):
        check(files, signature=signer.sign(MESSAGE), certificates=signer.certificates)


def test_a_hospital_cannot_issue_certificates(ca: DevelopmentCa, files: TlsFiles, tmp_path: Path) -> None:
    """A leaf certificate and its key, used as if they were a CA's."""
    hospital = issue(ca, Identity(Kind.HOSPITAL, "north"), tmp_path / "north")
    leaf = x509.load_pem_x509_certificate(hospital.certificate.read_bytes())
    leaf_key = serialization.load_pem_private_key(hospital.key.read_bytes(), None)
    assert isinstance(leaf_key, ec.EllipticCurvePrivateKey)
    key = ec.generate_private_key(ec.SECP256R1())
    forged = _certificate(key.public_key(), leaf.subject).sign(leaf_key, hashes.SHA256())
    chain = tuple(_pem(certificate) for certificate in (forged, leaf))
    with pytest.raises(InvalidInput, match="do not lead"):
        check(files, signature=key.sign(MESSAGE, ec.ECDSA(hashes.SHA256())), certificates=chain)


@pytest.mark.parametrize("days", [-1, 400])
def test_a_certificate_counts_only_in_its_time(files: TlsFiles, days: int) -> None:
    with pytest.raises(InvalidInput, match="not valid"):
        check(files, at=NOW + dt.timedelta(days=days))


@pytest.mark.parametrize("uris", [[], ["spiffe://trefoil.local/party/0", "spiffe://trefoil.local/party/1"]])
def test_a_certificate_names_one_identity(ca: DevelopmentCa, uris: list[str], tmp_path: Path) -> None:
    ca.issue(party_identity(0), tmp_path / "keys", uris=uris)
    folder = tmp_path / "keys"
    with pytest.raises(InvalidInput, match="identity"):
        TlsSigner(TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt"))


def test_the_key_must_be_the_certificates(ca: DevelopmentCa, files: TlsFiles, tmp_path: Path) -> None:
    other = issue(ca, party_identity(1), tmp_path / "party-1")
    with pytest.raises(InvalidInput, match="not the key"):
        TlsSigner(TlsFiles(files.certificate, other.key, files.ca))


def test_a_key_that_everybody_may_read_is_refused(files: TlsFiles) -> None:
    files.key.chmod(0o644)
    with pytest.raises(InvalidInput, match="chmod"):
        TlsSigner(files)


@pytest.mark.parametrize("certificates", [(), ("nonsense",), ("-----BEGIN CERTIFICATE-----\nAA==\n",)])
def test_what_is_no_certificate_is_refused(files: TlsFiles, certificates: tuple[str, ...]) -> None:
    with pytest.raises(InvalidInput):
        check(files, certificates=certificates)


def _issued_elsewhere(key: object, folder: Path) -> TlsFiles:
    """A certificate of an organisation's own CA, with an intermediate one."""
    root_key, middle_key = (ec.generate_private_key(ec.SECP256R1()) for _ in range(2))
    root_name, middle_name = (_name(text) for text in ("root", "intermediate"))
    root = _certificate(root_key.public_key(), root_name, subject=root_name, ca=True)
    middle = _certificate(middle_key.public_key(), root_name, subject=middle_name, ca=True)
    leaf = _certificate(key.public_key(), middle_name)  # type: ignore[attr-defined]
    chain = [leaf.sign(middle_key, hashes.SHA256()), middle.sign(root_key, hashes.SHA256())]
    (folder / "tls.crt").write_text("".join(_pem(certificate) for certificate in chain))
    (folder / "ca.crt").write_text(_pem(root.sign(root_key, hashes.SHA256())))
    pem = key.private_bytes(  # type: ignore[attr-defined]
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    (folder / "tls.key").touch(mode=0o600)
    (folder / "tls.key").write_bytes(pem)
    return TlsFiles(folder / "tls.crt", folder / "tls.key", folder / "ca.crt")


def _certificate(
    public_key: object, issuer: x509.Name, *, subject: x509.Name | None = None, ca: bool = False
) -> x509.CertificateBuilder:
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject or _name("party"))
        .issuer_name(issuer)
        .public_key(public_key)  # type: ignore[arg-type]
        .serial_number(x509.random_serial_number())
        .not_valid_before(NOW - dt.timedelta(days=1))
        .not_valid_after(NOW + dt.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=ca, path_length=None), critical=True)
    )
    if ca:
        return builder
    name = x509.UniformResourceIdentifier(party_identity(0).uri)
    return builder.add_extension(x509.SubjectAlternativeName([name]), critical=False)


def _name(text: str) -> x509.Name:
    return x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, text)])


def _pem(certificate: x509.Certificate) -> str:
    return certificate.public_bytes(serialization.Encoding.PEM).decode()
