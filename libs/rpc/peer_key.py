"""Which key the other end of this very connection proved to hold."""

from __future__ import annotations

import hashlib

from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat

from libs.core.errors import InvalidInput, Unauthenticated
from libs.rpc.identity import TlsFiles
from libs.rpc.interceptors.handlers import Context


def peer_key_sha256(context: Context) -> str:
    """SHA-256 of the SubjectPublicKeyInfo of the caller's certificate, hex.

    A renewed certificate of the same key keeps it, so whatever is bound to it outlives a renewal.
    Unauthenticated without exactly one certificate that can be read.
    """
    certificates = list(context.auth_context().get("x509_pem_cert", ()))
    try:
        (certificate,) = certificates
        return _key_sha256(x509.load_pem_x509_certificate(certificate))
    except ValueError as error:
        raise Unauthenticated(
            "Your certificate cannot be read. Ask the operator of its CA for another."
        ) from error


def own_key_sha256(tls: TlsFiles) -> str:
    """The same of a process's own certificate, for its people to read out. InvalidInput if unreadable."""
    try:
        return _key_sha256(x509.load_pem_x509_certificate(tls.certificate.read_bytes()))
    except (OSError, ValueError) as error:
        raise InvalidInput(f"The certificate {tls.certificate} cannot be read.") from error


def _key_sha256(certificate: x509.Certificate) -> str:
    key = certificate.public_key().public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
    return hashlib.sha256(key).hexdigest()
