"""Words that somebody signed with the key of its certificate: they stay whole whoever passes them on.

A coordinator carries training plans and requests for access between people and hospitals. What a hospital's
owner approves must be what the scientist wrote, so the scientist signs it, and the node checks the signature
against its own CA. The signature covers a fixed prefix, so that it is never one of TLS or of anything else.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from cryptography import x509
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from cryptography.x509.verification import PolicyBuilder, Store, VerificationError

from libs.core.errors import InvalidInput
from libs.rpc._generated.trefoil.types.v1.types_pb2 import SignedStatement
from libs.rpc.identity import Identity, TlsFiles
from libs.rpc.signing import certificate_identity, sign_with, verify_with

_PREFIX = b"trefoil-statement-v1\0"
MAX_PAYLOAD_BYTES = 64 * 1024
MAX_CHAIN_BYTES = 64 * 1024


@dataclass(frozen=True)
class Statement:
    """What was signed, and by whom."""

    kind: str
    signer: Identity
    fields: Mapping[str, Any]

    def text(self, name: str) -> str:
        """The field of that name. InvalidInput unless it is a text."""
        value = self.fields.get(name)
        if not isinstance(value, str):
            raise InvalidInput(
                f"The signed statement lacks the text {name!r}. Update the client that made it."
            )
        return value

    def texts(self, name: str) -> tuple[str, ...]:
        """The field of that name. InvalidInput unless it is a list of texts."""
        value = self.fields.get(name)
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            raise InvalidInput(
                f"The signed statement lacks the list {name!r}. Update the client that made it."
            )
        return tuple(value)

    def number(self, name: str) -> int:
        """The field of that name. InvalidInput unless it is a whole number from 0 on."""
        value = self.fields.get(name)
        if isinstance(value, bool) or not isinstance(value, int) or value < 0:
            raise InvalidInput(
                f"The signed statement lacks the number {name!r}. Update the client that made it."
            )
        return value


def sign_statement(kind: str, fields: Mapping[str, Any], *, tls: TlsFiles) -> SignedStatement:
    """`fields` under the private key of `tls`. InvalidInput if key or certificate cannot be read."""
    payload = _canonical({**fields, "kind": kind})
    try:
        key = load_pem_private_key(tls.key.read_bytes(), password=None)
        chain = tls.certificate.read_bytes()
    except (OSError, ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"The key {tls.key} or its certificate cannot be read.") from error
    return SignedStatement(
        payload=payload, signature=sign_with(key, _PREFIX + payload), certificate_chain=chain
    )


def verify_statement(message: SignedStatement, *, kind: str, ca: bytes, now: datetime) -> Statement:
    """The statement, if the holder of a certificate of this federation signed exactly these words.

    `ca`: the CA certificates that are trusted, in PEM. InvalidInput for another kind, a broken signature, a
    certificate of another CA or outside its time, or one that names nobody here.
    """
    if not message.payload or len(message.payload) > MAX_PAYLOAD_BYTES:
        raise InvalidInput("The signed statement is empty or too long.")
    leaf, signer = _verified_leaf(message.certificate_chain, ca=ca, now=now)
    try:
        verify_with(leaf.public_key(), message.signature, _PREFIX + message.payload)
    except InvalidInput as error:
        raise InvalidInput(
            "The statement's signature is wrong: somebody changed it on its way. Send it again."
        ) from error
    try:
        fields = json.loads(message.payload)
    except ValueError:
        fields = None
    if not isinstance(fields, dict) or _canonical(fields) != message.payload:
        raise InvalidInput("The signed statement is not canonical JSON.")
    if fields.get("kind") != kind:
        raise InvalidInput(f"The signed statement is not of the kind {kind}.")
    return Statement(kind, signer, fields)


def _verified_leaf(chain: bytes, *, ca: bytes, now: datetime) -> tuple[x509.Certificate, Identity]:
    try:
        if len(chain) > MAX_CHAIN_BYTES:
            raise ValueError("too long")
        leaf, *intermediates = x509.load_pem_x509_certificates(chain)
        store = Store(x509.load_pem_x509_certificates(ca))
        verifier = PolicyBuilder().store(store).time(now).build_client_verifier()
        verifier.verify(leaf, intermediates)
    except (ValueError, VerificationError) as error:
        raise InvalidInput(
            "The signed statement's certificate is not one of this federation, or is out of date."
        ) from error
    return leaf, certificate_identity(leaf)


def _canonical(fields: Mapping[str, Any]) -> bytes:
    try:
        return json.dumps(
            fields, sort_keys=True, separators=(",", ":"), ensure_ascii=True, allow_nan=False
        ).encode()
    except (TypeError, ValueError) as error:
        raise InvalidInput("A statement holds texts, whole numbers and lists of them only.") from error
