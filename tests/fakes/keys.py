"""Keys that `create_keys` made, by whom they belong to."""

from __future__ import annotations

from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from libs.rpc.dev_ca import folder_name
from libs.rpc.identity import Identity, TlsFiles


def tls_files(keys: Path, identity: Identity) -> TlsFiles:
    """The certificate and key of `identity`."""
    folder = keys / folder_name(identity)
    return TlsFiles(certificate=folder / "tls.crt", key=folder / "tls.key", ca=folder / "ca.crt")


def issue_again(keys: Path, identity: Identity) -> None:
    """Replace the certificate of `identity` by one for a new key, signed by the same CA."""
    folder = keys / folder_name(identity)
    key = ec.generate_private_key(ec.SECP256R1())
    old = x509.load_pem_x509_certificate((folder / "tls.crt").read_bytes())
    builder = (
        x509.CertificateBuilder()
        .subject_name(old.subject)
        .issuer_name(old.issuer)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(old.not_valid_before_utc)
        .not_valid_after(old.not_valid_after_utc)
    )
    for extension in old.extensions:
        builder = builder.add_extension(extension.value, critical=extension.critical)
    ca = serialization.load_pem_private_key((keys / "ca" / "ca.key").read_bytes(), password=None)
    certificate = builder.sign(ca, hashes.SHA256())  # type: ignore[arg-type]  # the development CA's is EC
    encoding, form = serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8
    (folder / "tls.key").write_bytes(key.private_bytes(encoding, form, serialization.NoEncryption()))
    (folder / "tls.crt").write_bytes(certificate.public_bytes(encoding))
