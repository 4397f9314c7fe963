"""A full disk, in words that its operator can act on."""

from __future__ import annotations

import errno
from collections.abc import Iterator
from contextlib import contextmanager

from libs.core.errors import StorageFull

_FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}


@contextmanager
def full_disk_explained() -> Iterator[None]:
    """Raise `StorageFull` for what the system calls no space, quota exceeded or file too large."""
    try:
        yield
    except OSError as error:
        if error.errno in _FULL:
            raise store_full() from error
        raise


def store_full() -> StorageFull:
    """The error of a store without room."""
    return StorageFull(
        "This party's share store is full; nothing was kept of the request. "
        "Its operator must make room or raise quota_bytes; then send it again."
    )
