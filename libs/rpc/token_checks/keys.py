"""Public keys that check tokens: their type decides the algorithm, weak ones are refused."""

from __future__ import annotations

import json
import re
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

from libs.core.errors import InvalidInput, Unauthenticated
from libs.rpc.token_checks.claims import ASK, Expected, TokenClaims, accepted
from libs.rpc.token_checks.signatures import (
    KeyAlgorithm,
    PublicKey,
    claimed_key_id,
    signed_claims,
    verified,
)

MIN_RSA_BITS = 2048
MAX_KEYS = 8
_PEM_BLOCK = re.compile(rb"-----BEGIN (?:RSA )?PUBLIC KEY-----[^-]+-----END (?:RSA )?PUBLIC KEY-----")
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
    """One issuer's public keys and what its tokens must say.

    With `key_ids` (one per key) a token that names its key is checked with that key alone; without, and for
    tokens that name none, each key is tried: what a `kid` means is then nowhere written down.
    """

    expected: Expected
    keys: tuple[VerificationKey, ...]
    key_ids: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if not 0 < len(self.keys) <= MAX_KEYS:
            raise InvalidInput(f"An issuer has 1 to {MAX_KEYS} public keys in files. Take old ones away.")

    @property
    def issuer(self) -> str:
        """Whose tokens it checks."""
        return self.expected.issuer

    def claims(self, token: str, *, now: datetime) -> TokenClaims:
        """What the token says; Unauthenticated unless it is good. Cost: a signature per key tried."""
        keys = self._keys_for(token)
        if len(keys) == 1:
            return verified(token, keys[0].key, keys[0].algorithm, self.expected, now=now)
        for key in keys:
            try:
                said = signed_claims(token, key.key, key.algorithm)
            except Unauthenticated:
                continue
            return accepted(said, self.expected, now=now)
        raise Unauthenticated(f"The token's signature is wrong: none of its issuer's keys made it. {ASK}")

    def _keys_for(self, token: str) -> tuple[VerificationKey, ...]:
        key_id = None if self.key_ids is None else claimed_key_id(token)
        if self.key_ids is None or key_id is None:
            return self.keys
        if key_id not in self.key_ids:
            raise Unauthenticated(f"The token is signed with a key that its issuer does not list. {ASK}")
        return (self.keys[self.key_ids.index(key_id)],)


def read_public_keys(path: Path, *, rsa_algorithm: KeyAlgorithm) -> tuple[VerificationKey, ...]:
    """The public keys in the PEM file, one or more.

    InvalidInput if there is none, one is too weak or something else, or anybody may change the file.
    """
    try:
        if path.stat().st_mode & stat.S_IWOTH:
            raise InvalidInput(f"Everybody on this machine may change {path}. Run: chmod o-w {path}")
        pem = path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"The public key {path} cannot be read: {error.strerror}.") from error
    if b"PRIVATE KEY" in pem:
        raise InvalidInput(f"{path} holds a private key. Give this service the public one only.")
    blocks = _PEM_BLOCK.findall(pem)
    try:
        if not blocks or pem.count(b"-----BEGIN ") != len(blocks):
            raise ValueError("something else than public keys")
        return tuple(
            VerificationKey.of(load_pem_public_key(block), rsa_algorithm=rsa_algorithm) for block in blocks
        )
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
