"""Files with secrets: written for one account, and refused when everybody may read them."""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

from libs.core.errors import InvalidInput

PRIVATE_UMASK = 0o077
"""For `os.umask` in a service's main: nothing that it writes is for other accounts."""


def require_private(path: Path) -> None:
    """Raise `InvalidInput` when everybody on this machine may read or write the file.

    Its group may read it: mounted secrets often belong to root and a group. OSError when there is no file.
    """
    if path.stat().st_mode & (stat.S_IROTH | stat.S_IWOTH):
        raise InvalidInput(f"Everybody on this machine may read {path}. Run: chmod 600 {path}")


def write_private(path: Path, text: str) -> None:
    """Make or replace a file that only its owner can read, at every moment. Raises OSError."""
    fresh = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    try:
        with os.fdopen(os.open(fresh, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
            file.write(text)
        fresh.replace(path)
    except BaseException:
        fresh.unlink(missing_ok=True)
        raise
