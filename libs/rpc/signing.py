"""Signatures with a service's TLS key, checked by its certificate: who signed is a fact of the CA.

The key types are those that TLS here uses: ECDSA on P-256 or P-384, RSA (PSS), and Ed25519.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from itertools import pairwise

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa

from libs.core.errors import InvalidInput
from libs.rpc.identity import Identity, TlsFiles
from libs.runtime.audit.checkpoint import Checkpoint
from libs.runtime.private_files import require_private

_PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey | ed25519.Ed25519PrivateKey
_PSS = padding.PSS(mgf=padding.MGF1(hashes.SHA256()), salt_length=padding.PSS.DIGEST_LENGTH)
_ECDSA = ec.ECDSA(hashes.SHA256())
_MAX_CHAIN = 8


class TlsSigner:
    """Signs as the one identity in a service's certificate. Implements `libs.runtime.audit`'s `Signer`."""

    def __init__(self, files: TlsFiles) -> None:
        """Reads certificate and key. InvalidInput if one cannot be used, or they do not belong together."""
        try:
            require_private(files.key)
            chain = x509.load_pem_x509_certificates(files.certificate.read_bytes())
            key = serialization.load_pem_private_key(files.key.read_bytes(), password=None)
        except OSError as error:
            raise InvalidInput(f"The file {error.filename} cannot be read: {error.strerror}.") from error
        except (ValueError, TypeError) as error:
            raise InvalidInput(
                f"{files.certificate} and {files.key} are not a certificate and its key in PEM."
            ) from error
        if not isinstance(key, _PrivateKey) or key.public_key() != chain[0].public_key():
            raise InvalidInput(f"{files.key} is not the key of {files.certificate}, or of an unknown type.")
        self._key: _PrivateKey = key
        self._identity = certificate_identity(chain[0]).uri
        self._certificates = tuple(
            certificate.public_bytes(serialization.Encoding.PEM).decode("ascii") for certificate in chain
        )

    @property
    def identity(self) -> str:
        """The identity URI in the certificate."""
        return self._identity

    @property
    def certificates(self) -> tuple[str, ...]:
        """The certificate in PEM, then those that lead from it to the CA."""
        return self._certificates

    def sign(self, message: bytes) -> bytes:
        """A signature for `check_signature`."""
        return sign_with(self._key, message)


def sign_with(key: object, message: bytes) -> bytes:
    """A signature for `verify_with`. InvalidInput for a key of a type that signs nothing here."""
    if isinstance(key, ec.EllipticCurvePrivateKey):
        return key.sign(message, _ECDSA)
    if isinstance(key, rsa.RSAPrivateKey):
        return key.sign(message, _PSS, hashes.SHA256())
    if isinstance(key, ed25519.Ed25519PrivateKey):
        return key.sign(message)
    raise InvalidInput("The private key is not an EC, Ed25519 or RSA key.")


def verify_with(key: object, signature: bytes, message: bytes) -> None:
    """Raise InvalidInput unless the holder of this public key signed exactly `message`."""
    try:
        if isinstance(key, ec.EllipticCurvePublicKey):
            key.verify(signature, message, _ECDSA)
        elif isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, _PSS, hashes.SHA256())
        elif isinstance(key, ed25519.Ed25519PublicKey):
            key.verify(signature, message)
        else:
            raise InvalidInput("The signer's key is of a type that signs nothing here.")
    except InvalidSignature as error:
        raise InvalidInput("The signature does not fit to what was signed.") from error


def certificate_identity(certificate: x509.Certificate) -> Identity:
    """The identity in a certificate: exactly one URI, and one that this federation would write."""
    try:
        names = certificate.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (x509.ExtensionNotFound, ValueError) as error:
        raise InvalidInput("The certificate names no identity.") from error
    uris = names.get_values_for_type(x509.UniformResourceIdentifier)
    if len(uris) != 1:
        raise InvalidInput("The certificate does not name exactly one identity.")
    return Identity.parse(uris[0])


def check_signature(
    message: bytes,
    signature: bytes,
    *,
    certificates: Sequence[str],
    authorities: Sequence[x509.Certificate],
    identity: str,
    at: datetime,
) -> None:
    """Raise InvalidInput unless `identity` signed `message` with a certificate that was good at that moment.

    `certificates` in PEM lead from the signer's to one of the `authorities`, each issued by the next.
    """
    chain = [_certificate(pem) for pem in certificates]
    if not 0 < len(chain) <= _MAX_CHAIN:
        raise InvalidInput("The signature comes without a certificate, or with too many.")
    _check_chain(chain, authorities, at=at)
    signer = certificate_identity(chain[0]).uri
    if signer != identity:
        raise InvalidInput(f"The signature is by {signer}, not by {identity}.")
    verify_with(chain[0].public_key(), signature, message)


def checkpoint_check(authorities: Sequence[x509.Certificate]) -> Callable[[Checkpoint], None]:
    """What `verify_trail` asks about each checkpoint: did the trail's own service sign it, under this CA."""

    def check(checkpoint: Checkpoint) -> None:
        try:
            at = datetime.fromisoformat(checkpoint.at)
        except ValueError as error:
            raise InvalidInput("It does not say when it was signed.") from error
        check_signature(
            checkpoint.message,
            checkpoint.signature,
            certificates=checkpoint.certificates,
            authorities=authorities,
            identity=checkpoint.trail,
            at=at if at.tzinfo is not None else at.replace(tzinfo=UTC),
        )

    return check


def read_authorities(pem: bytes) -> list[x509.Certificate]:
    """The CA certificates in a PEM file. InvalidInput if there is none."""
    try:
        return x509.load_pem_x509_certificates(pem)
    except ValueError as error:
        raise InvalidInput("The file holds no CA certificate in PEM.") from error


def _check_chain(
    chain: Sequence[x509.Certificate], authorities: Sequence[x509.Certificate], *, at: datetime
) -> None:
    for certificate in chain:
        if not certificate.not_valid_before_utc <= at <= certificate.not_valid_after_utc:
            raise InvalidInput("The signer's certificate was not valid at the moment of the signature.")
    for certificate, issuer in pairwise(chain):
        if not _issued_by(certificate, issuer):
            raise InvalidInput("The signer's certificates do not lead from one to the next.")
    last = chain[-1]
    if not any(last == authority or _issued_by(last, authority) for authority in authorities):
        raise InvalidInput("The signer's certificate was not issued by this CA.")


def _issued_by(certificate: x509.Certificate, issuer: x509.Certificate) -> bool:
    """Whether `issuer` may issue certificates and did issue this one."""
    try:
        constraints = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value
        certificate.verify_directly_issued_by(issuer)
    except (x509.ExtensionNotFound, ValueError, TypeError, InvalidSignature):
        return False
    return constraints.ca


def _certificate(pem: str) -> x509.Certificate:
    try:
        return x509.load_pem_x509_certificate(pem.encode("ascii"))
    except (ValueError, AttributeError) as error:
        raise InvalidInput("The signer's certificate cannot be read.") from error
