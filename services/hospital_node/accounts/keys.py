"""The node's own keys for accounts: one signs access tokens, one seals second factors."""

from __future__ import annotations

import os
import secrets
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey

from libs.core.errors import InvalidInput
from libs.core.secret import Secret
from libs.runtime.private_files import require_private

SEALING_KEY_BYTES = 32


def signing_key(path: Path) -> Ed25519PrivateKey:
    """The private key in the PEM file, made if there is none. InvalidInput if it is something else."""
    try:
        key = serialization.load_pem_private_key(_read_or_make(path, _new_signing_key), password=None)
    except (ValueError, TypeError, UnsupportedAlgorithm) as error:
        raise InvalidInput(f"{path} is not a private key in PEM. {_MOVE_AWAY}") from error
    if not isinstance(key, Ed25519PrivateKey):
        raise InvalidInput(f"{path} is not an Ed25519 key. {_MOVE_AWAY}")
    return key


def sealing_key(path: Path) -> Secret[bytes]:
    """The 32 bytes in the file (hexadecimal text), made if there is none. InvalidInput for anything else."""
    try:
        key = bytes.fromhex(_read_or_make(path, _new_sealing_key).decode("ascii").strip())
    except ValueError as error:
        raise InvalidInput(f"{path} is not hexadecimal text. {_RESTORE}") from error
    if len(key) != SEALING_KEY_BYTES:
        raise InvalidInput(f"{path} does not hold {SEALING_KEY_BYTES} bytes. {_RESTORE}")
    return Secret(key)


_MOVE_AWAY = "Move it away: the node makes a new one at its next start, and everybody logs in again."
_RESTORE = "Restore it from a backup: without it no second factor can be read."


def _new_signing_key() -> bytes:
    return Ed25519PrivateKey.generate().private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )


def _new_sealing_key() -> bytes:
    return secrets.token_hex(SEALING_KEY_BYTES).encode("ascii") + b"\n"


def _read_or_make(path: Path, make: Callable[[], bytes]) -> bytes:
    """The file's bytes; a new file is never readable by others, and of two makers one wins."""
    try:
        path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
        if not path.exists():
            with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "wb") as file:
                file.write(make())
                file.flush()
                os.fsync(file.fileno())
            with suppress(FileExistsError):  # another process was faster
                os.link(fresh, path)
            fresh.unlink()
        require_private(path)
        return path.read_bytes()
    except OSError as error:
        raise InvalidInput(f"The key {path} cannot be read or made: {error.strerror}.") from error
