"""Pseudorandom masks: AES-128-CTR under keys that only two parties hold.

Every stream has a key of its own, HMAC-SHA256(pair key, computation, label) cut to 128 bits, and
counts from zero. Handing out one stream's key (a seed) therefore tells nothing about any other
stream. A `MaskSource` refuses to open a label twice: two values under one mask leak their
difference. Source: NIST SP 800-38A (CTR), SP 800-108 (key derivation by HMAC), RFC 5869 (HKDF),
RFC 7748 (X25519).
"""

from __future__ import annotations

import hashlib
import hmac
import secrets
from typing import Any

import numpy as np
import numpy.typing as npt
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from libs.core.errors import InvalidInput, MaskReuse
from libs.core.secret import Secret
from libs.mpc.ring import Ring, RingArray

SEED_BYTES = 16
_ZEROS = memoryview(bytes(1 << 20))


class Prg:
    """One stream of pseudorandom bytes. Reading moves on; nothing is ever read twice."""

    __slots__ = ("_encryptor", "_seed")

    def __init__(self, seed: bytes) -> None:
        if len(seed) != SEED_BYTES:
            raise InvalidInput(f"A seed has {SEED_BYTES} bytes, not {len(seed)}.")
        self._seed = Secret(seed)
        self._encryptor = Cipher(algorithms.AES(seed), modes.CTR(bytes(16))).encryptor()

    def seed(self) -> bytes:
        """The stream's key, for the one client that must draw the same masks."""
        return self._seed.expose()

    def array(self, shape: tuple[int, ...], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
        """The next bytes of the stream as a fresh, writable array."""
        out = np.empty(shape, dtype=dtype)
        view = memoryview(out.reshape(-1).view(np.uint8).data)
        done = 0
        while done < len(view):
            size = min(len(view) - done, len(_ZEROS))
            self._encryptor.update_into(_ZEROS[:size] if size < len(_ZEROS) else _ZEROS, view[done:])
            done += size
        return out

    def ring(self, shape: tuple[int, ...], ring: Ring) -> RingArray:
        """Uniform ring elements."""
        return self.array(shape, ring.dtype)


def expand_seed(seed: bytes, length: int, ring: Ring) -> RingArray:
    """The share that a 16-byte seed stands for. Shape (length,)."""
    return Prg(seed).ring((length,), ring)


class MaskSource:
    """The masks that two parties share within one computation."""

    __slots__ = ("_computation", "_key", "_opened")

    def __init__(self, key: Secret[bytes], computation_id: str) -> None:
        self._key = key
        self._computation = computation_id.encode()
        self._opened: set[str] = set()

    def stream(self, label: str) -> Prg:
        """The stream named `label`. Raises `MaskReuse` when it was opened before."""
        if label in self._opened:
            raise MaskReuse("A mask was about to be drawn a second time; the computation is aborted.")
        self._opened.add(label)
        name = len(self._computation).to_bytes(4, "big") + self._computation + label.encode()
        return Prg(hmac.digest(self._key.expose(), name, hashlib.sha256)[:SEED_BYTES])

    def __repr__(self) -> str:
        return "MaskSource(<redacted>)"


class PairKey:
    """A key that exactly two parties hold, fresh for every stream between them.

    It hands out each computation once, so that no retry can draw the same masks again.
    """

    __slots__ = ("_key", "_used")

    def __init__(self, key: bytes) -> None:
        if len(key) != 32:
            raise InvalidInput(f"A pair key has 32 bytes, not {len(key)}.")
        self._key = Secret(key)
        self._used: set[bytes] = set()

    def for_computation(self, computation_id: str) -> MaskSource:
        """The masks of one computation. Raises `MaskReuse` when it was asked for before."""
        digest = hashlib.sha256(computation_id.encode()).digest()[:16]
        if digest in self._used:
            raise MaskReuse("A computation's masks were asked for a second time; it is aborted.")
        self._used.add(digest)
        return MaskSource(self._key, computation_id)

    def __repr__(self) -> str:
        return "PairKey(<redacted>)"


def new_private_key() -> X25519PrivateKey:
    """A fresh X25519 key for one stream."""
    return X25519PrivateKey.generate()


def agree_pair_key(mine: X25519PrivateKey, peer_public: bytes, *, low: int, high: int) -> PairKey:
    """The key of parties `low` and `high` from an exchange that mTLS authenticated.

    Both public keys enter the derivation, so the key belongs to this exchange and to no other.
    """
    try:
        shared = mine.exchange(X25519PublicKey.from_public_bytes(peer_public))
    except ValueError:
        raise InvalidInput("The peer's X25519 public key is not valid; the link is closed.") from None
    publics = sorted([mine.public_key().public_bytes_raw(), peer_public])
    info = b"trefoil pair key v1" + bytes([low, high]) + b"".join(publics)
    return PairKey(HKDF(algorithm=hashes.SHA256(), length=32, salt=None, info=info).derive(shared))


def random_ring(shape: tuple[int, ...], ring: Ring) -> RingArray:
    """Uniform ring elements from the system's generator, expanded by AES from a fresh seed."""
    return Prg(secrets.token_bytes(SEED_BYTES)).ring(shape, ring)
