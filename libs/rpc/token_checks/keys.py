"""Public keys that check tokens: their type decides the algorithm, weak ones are refused."""

from __future__ import annotations

import json
import stat
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import jwt
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ec import SECP256R1, EllipticCurvePublicKey
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from cryptography.hazmat.primitives.serialization import load_pem_public_key

from libs.core.errors import InvalidInput
from libs.rpc.token_checks.claims import Expected, TokenClaims
from libs.rpc.token_checks.signatures import KeyAlgorithm, PublicKey, verified

MIN_RSA_BITS = 2048
RSA_ALGORITHMS = (KeyAlgorithm.RS256, KeyAlgorithm.PS256)


@dataclass(frozen=True)
class VerificationKey:
    """A public key and the only algorithm it is used with."""

    key: PublicKey
    algorithm: KeyAlgorithm

    @classmethod
    def of(cls, key: object, *, rsa_algorithm: KeyAlgorithm) -> VerificationKey:
        """`key` with the algorithm of its type. InvalidInput for other types, curves and sizes."""
        if rsa_algorithm not in RSA_ALGORITHMS:
            raise InvalidInput("An RSA key is used with RS256 or PS256.")
        if isinstance(key, RSAPublicKey):
            if key.key_size < MIN_RSA_BITS:
                raise InvalidInput(
                    f"The RSA key has {key.key_size} bits; use one with {MIN_RSA_BITS} or more."
                )
            return cls(key, rsa_algorithm)
        if isinstance(key, EllipticCurvePublicKey) and isinstance(key.curve, SECP256R1):
            return cls(key, KeyAlgorithm.ES256)
        if isinstance(key, Ed25519PublicKey):
            return cls(key, KeyAlgorithm.EDDSA)
        raise InvalidInput("The key is not an RSA, EC P-256 or Ed25519 public key.")


@dataclass(frozen=True)
class TokenKey:
    """One issuer's public key and what its tokens must say."""

    expected: Expected
    key: VerificationKey

    @property
    def issuer(self) -> str:
        """Whose tokens it checks."""
        return self.expected.issuer

    def claims(self, token: str, *, now: datetime) -> TokenClaims:
        """What the token says; Unauthenticated unless it is good."""
        return verified(token, self.key.key, self.key.algorithm, self.expected, now=now)


def read_public_key(path: Path, *, rsa_algorithm: KeyAlgorithm) -> VerificationKey:
    """The public key in the PEM file. InvalidInput if it is none, too weak, or anybody may change it."""
    try:
        if path.stat().st_mode & stat.S_IWOTH:
            raise InvalidInput(f"Everybody on this machine may change {path}. Run: chmod o-w {path}")
        pem = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"The public key {path} cannot be read: {error.strerror}.") from error
    if b"PRIVATE KEY" in pem:
        raise InvalidInput(f"{path} holds a private key. Give this service the public one only.")
    try:
        return VerificationKey.of(load_pem_public_key(pem), rsa_algorithm=rsa_algorithm)
    except (ValueError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"{path} is not a public key in PEM (-----BEGIN PUBLIC KEY-----).") from error
    except InvalidInput as error:
        raise InvalidInput(f"The public key {path} cannot be used. {error}") from error


def parse_key_set(document: bytes, *, rsa_algorithm: KeyAlgorithm) -> Mapping[str, VerificationKey]:
    """The usable keys of a JSON Web Key Set (RFC 7517) by `kid`. ValueError for what is no key set.

    Left out: keys without `kid` or for something else than signatures, symmetric ones, weak ones, those that
    name another algorithm than ours, and those that share their `kid`, since it would not choose one.
    """
    parsed = json.loads(document)
    entries = parsed.get("keys") if isinstance(parsed, dict) else None
    if not isinstance(entries, list):
        raise ValueError("not a JSON Web Key Set")
    usable = [found for entry in entries if (found := _usable(entry, rsa_algorithm)) is not None]
    times = Counter(key_id for key_id, _ in usable)
    return {key_id: key for key_id, key in usable if times[key_id] == 1}


def _usable(entry: Any, rsa_algorithm: KeyAlgorithm) -> tuple[str, VerificationKey] | None:
    if not isinstance(entry, dict) or entry.get("use", "sig") != "sig":
        return None
    key_id = entry.get("kid")
    if not isinstance(key_id, str) or not key_id or entry.get("kty") not in {"RSA", "EC", "OKP"}:
        return None
    try:
        # the public half, whatever the document holds; its `alg` is compared below, never followed
        public = {name: value for name, value in entry.items() if name not in {"d", "alg"}}
        key = VerificationKey.of(
            jwt.PyJWK(public, algorithm=_any_algorithm(entry)).key, rsa_algorithm=rsa_algorithm
        )
    except (InvalidInput, jwt.PyJWTError, ValueError, TypeError, KeyError):
        return None
    return (key_id, key) if entry.get("alg", key.algorithm.value) == key.algorithm.value else None


def _any_algorithm(entry: Mapping[str, Any]) -> str:
    return {"RSA": "RS256", "EC": "ES256", "OKP": "EdDSA"}[entry["kty"]]
