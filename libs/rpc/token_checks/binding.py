"""Tokens that only the holder of one certificate may use (RFC 8705): a stolen one is worth nothing."""

from __future__ import annotations

import base64

from cryptography import x509
from cryptography.hazmat.primitives.hashes import SHA256

from libs.core.errors import InvalidInput, Unauthenticated
from libs.rpc.token_checks.claims import TokenClaims


def thumbprint(certificate: bytes) -> str:
    """`x5t#S256` of a certificate in PEM: base64url of the SHA-256 of its DER form.

    InvalidInput for what is no certificate.
    """
    try:
        digest = x509.load_pem_x509_certificate(certificate).fingerprint(SHA256())
    except ValueError as error:
        raise InvalidInput("That is not a certificate in PEM (-----BEGIN CERTIFICATE-----).") from error
    return base64.urlsafe_b64encode(digest).rstrip(b"=").decode("ascii")


def require_its_certificate(claims: TokenClaims, certificate: bytes | None) -> None:
    """Unauthenticated if the token is bound to another certificate than the caller's (PEM)."""
    if claims.certificate is None:
        return
    if certificate is None or thumbprint(certificate) != claims.certificate:
        raise Unauthenticated(
            "The token belongs to another certificate than the one of this connection. Use it on the machine "
            "it was made for, or ask for a new one (trefoil keys token --bind)."
        )
